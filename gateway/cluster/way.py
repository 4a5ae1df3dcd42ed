"""Tries the way to a node's front, before models are placed there.

Ray reaches a node by ports of its own: that it does says nothing about this one. A firewall may be
in between, or the node be known by an address that is of use on its own machine alone.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Final

from gateway.cluster.link import Unreachable
from gateway.upstream import TcpAddress
from gateway.upstream.address import connect

_log = logging.getLogger(__name__)

_CONNECT: Final = 5.0


async def try_way(front: TcpAddress) -> None:
    """Return if both ends of a connection to ``front`` let each other in.

    Raises :class:`Unreachable`, with what to do.
    """
    tried = _Tried()
    try:
        async with asyncio.timeout(_CONNECT):
            await connect(front, tried)
    except (ssl.SSLError, ConnectionResetError) as error:
        # Who doesn't take a certificate closes the connection, and often says no more.
        reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error
        what = f"no secure connection ({reason}): are the clocks of both machines right?"
        raise Unreachable(f"{_shown(front)}: {what}", final=True) from None
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        what = (
            f"{_shown(front)} cannot be reached from here ({reason}): the machines of a cluster "
            "must reach each other at all ports, and --host of `node join` must be an address "
            "that this machine knows it by"
        )
        raise Unreachable(what, final=True) from None
    tried.end()


async def try_way_of(node: str, front: TcpAddress, known: str | None) -> None:
    """The same of a node, and say so in the log if that isn't the problem that is ``known``."""
    try:
        await try_way(front)
    except Unreachable as error:
        if error.message != known:
            _log.warning("the node %s can't be used: %s", node, error.message)
        raise


def _shown(front: TcpAddress) -> str:
    host = f"[{front.host}]" if ":" in front.host else front.host
    return f"{host}:{front.port}"


class _Tried(asyncio.Protocol):
    """The connection, of which nothing more is wanted."""

    _transport: asyncio.BaseTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def end(self) -> None:
        """Close it."""
        self._transport.close()
