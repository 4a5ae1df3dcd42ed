"""One rpc-server of llama.cpp: started, waited for and ended.

What it speaks has no keys, and it trusts whoever talks to it. So it listens on the loopback address
only, and other machines come by the node's front. It takes one connection at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.backends import process
from gateway.backends.deaths import how_it_ended
from gateway.backends.logring import LogRing
from gateway.errors import LoadFailed
from gateway.tasks import spawn
from gateway.upstream import TcpAddress

_log = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
#: How often it is started on another port, if somebody else takes the one that was free.
_TRIES: Final = 3
#: Seconds between two looks whether it listens, and for it to begin to: it starts the driver of its
#: GPU first.
_LOOK: Final = 0.05
_LISTENS: Final = 60.0
#: The lines of its log that go into an error.
_TAIL: Final = 4


class RpcServer:
    """An rpc-server ``program`` that lends ``devices``, by llama.cpp's names; "CPU" is one.

    ``name``: of the model that it is for.
    """

    def __init__(
        self,
        program: Path,
        devices: Sequence[str],
        threads: int,
        environ: Mapping[str, str],
        records: process.Records,
        log: LogRing,
        name: str,
    ) -> None:
        self._arguments = ("-d", ",".join(devices), "-t", str(threads))
        self._program = program
        self._environ = environ
        self._records = records
        self._log = log
        self._name = name
        self.child: process.Child | None = None
        self.address: TcpAddress | None = None

    async def until_listening(self) -> process.Child:
        """Start it, and return when it takes connections. Raises :class:`LoadFailed`.

        Nothing of it is left if this fails, or is cancelled.
        """
        for tried in range(1, _TRIES + 1):
            port = free_port()
            argv = (str(self._program), "-H", LOOPBACK, "-p", str(port), *self._arguments)
            first = self._log.total
            child = self.child = await process.start(
                argv, self._environ, log=self._log, name=self._name
            )
            try:
                await asyncio.to_thread(self._note, child)
                if await self._listens(child, port):
                    self.address = TcpAddress(LOOPBACK, port)
                    return child
            except BaseException:
                await self.end(0.0)
                raise
            await self.end(0.0)
            if tried == _TRIES or not await asyncio.to_thread(_taken, port):
                lines = " | ".join(self._log.tail(min(_TAIL, self._log.total - first)))
                status = child.returncode
                how = how_it_ended(status) if status is not None else "doesn't listen"
                raise LoadFailed(
                    f"the rpc-server for {self._name!r} {how}.", detail=f"Its last lines: {lines}"
                )
        raise AssertionError("unreachable")

    async def _listens(self, child: process.Child, port: int) -> bool:
        """Return whether it does, as soon as it does or has ended."""
        exited = spawn(child.wait(), name=f"exit of the rpc-server for {self._name}")
        try:
            async with asyncio.timeout(_LISTENS):
                while not exited.done():
                    with contextlib.suppress(OSError):
                        _, writer = await asyncio.open_connection(LOOPBACK, port)
                        writer.close()
                        # It may be somebody else's, and ours about to end for that.
                        await asyncio.wait([exited], timeout=_LOOK)
                        return not exited.done()
                    await asyncio.wait([exited], timeout=_LOOK)
        except TimeoutError:
            pass
        finally:
            exited.cancel()
        return False

    def _note(self, child: process.Child) -> None:
        try:
            self._records.write(child)
        except OSError as error:
            _log.warning("cannot note the rpc-server for %s: %s", self._name, error)

    async def end(self, grace: float) -> None:
        """End it, whatever it is doing."""
        if (child := self.child) is not None:
            await child.stop(grace)
            self.child = None
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._records.remove, child)


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False
