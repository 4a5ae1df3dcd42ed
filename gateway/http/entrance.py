"""The entrance of one listener: makes the protocols of its connections, and ends all of them."""

from __future__ import annotations

import asyncio

from gateway.http.fast_json import FastConnection
from gateway.http.fast_listener import FastListener

#: Seconds for answers that are written but not yet received, when the gateway ends.
_GRACE = 1.0


class Entrance:
    """A factory of the protocols of new connections. It also ends the existing ones."""

    def __init__(self, listener: FastListener) -> None:
        #: What all connections of the port share.
        self.listener = listener

    def __call__(self) -> FastConnection:
        """Return the protocol of a new connection."""
        return FastConnection(self.listener)

    async def close(self) -> None:
        """End what is still here, and what comes from now on."""
        listener = self.listener
        listener.emptied = listener.loop.create_future()
        tasks = [connection.end() for connection in list(listener.open)]
        if running := [task for task in tasks if task is not None]:
            await asyncio.wait(running)
        if listener.open:
            await asyncio.wait([listener.emptied], timeout=_GRACE)
        for connection in list(listener.open):
            connection.abort()
