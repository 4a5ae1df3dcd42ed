"""Tells ``node join`` that its node was removed from the cluster.

Gateways reach the node's actor alone, and ``node join`` doesn't talk to Ray: it hears of it from
that actor, by a datagram to a socket in its own folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from gateway.errors import GatewayError

#: The exit status of ``node join`` then, after which its service is not started again.
EXIT_STATUS: Final = 3
_REMOVED: Final = b"removed"


class NodeRemoved(GatewayError):
    """The node was removed from its cluster by somebody."""

    status = 503
    default_code = "node_removed"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} was removed from the cluster (`llm-gateway node remove`), so nothing is run "
            "here any more. To use it again, start `llm-gateway node join` again; "
            "`llm-gateway node leave` removes its service, if it is one"
        )


@contextlib.asynccontextmanager
async def ends_when_removed(name: str, file: Path) -> AsyncIterator[None]:
    """Raise :class:`NodeRemoved` in the body as soon as the socket ``file`` is told."""
    scope = asyncio.timeout(None)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.setblocking(False)
        told.bind(str(file))

        def hear() -> None:
            if told.recv(64) == _REMOVED:
                scope.reschedule(0.0)

        loop.add_reader(told, hear)
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise NodeRemoved(name) from None
        finally:
            loop.remove_reader(told)


def tell(file: Path) -> None:
    """Tell who listens at ``file``, if anybody does, that the node was removed."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.setblocking(False)
        to.sendto(_REMOVED, str(file))
