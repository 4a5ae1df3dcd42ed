"""The rpc-server of one order: it lends devices of this node to a llama-server on another one."""

from __future__ import annotations

import asyncio
import os
import re
import time
from typing import Final

from gateway.backends.backend import Environment
from gateway.backends.deaths import how_it_ended, why_it_ended
from gateway.backends.process import Child
from gateway.backends.ram import RAM
from gateway.backends.suspects import by_request
from gateway.cluster.front import Front
from gateway.cluster.journal import Journal
from gateway.cluster.ordered import Ordered
from gateway.cluster.rpc_program import find_rpc_server
from gateway.cluster.rpc_server import RpcServer
from gateway.cluster.told import Exited, Order, Ready
from gateway.errors import LoadFailed
from gateway.tasks import cancel_and_wait, spawn

#: llama.cpp's name for what computes in RAM.
_CPU: Final = "CPU"
#: Seconds between two looks whether the llama-server is still there, and after how many without a
#: connection of its this ends by itself: the gateway that would end it may be gone, too.
_LOOK: Final = 5.0
_ALONE: Final = 60.0
_TAIL: Final = 8
_CONNECTIONS: Final = re.compile(r"Accepted client connection|Client connection closed")


class Lent(Ordered):
    """An rpc-server of the node ``node``, behind a door of ``front``.

    ``program``: the llama-server of the node, beside which it is looked for.
    """

    what = "rpc-server"

    def __init__(
        self,
        order: Order,
        environment: Environment,
        journal: Journal,
        front: Front,
        node: str,
        program: tuple[str, ...],
    ) -> None:
        self._node = node
        self._env = environment
        self._program = program
        self._server: RpcServer | None = None
        super().__init__(order, journal, front.add())

    @property
    def unused(self) -> bool:
        """Whether no llama-server is connected to it."""
        return not self._door.connections

    @property
    def _child(self) -> Child | None:
        return self._server.child if self._server is not None else None

    def _tell_line(self) -> None:
        line = self._log.last
        if not _CONNECTIONS.match(line):  # llama.cpp makes one for each thing that it asks
            self._journal.log(self.order.server, f"{self._node}: {line}")

    async def _serve(self) -> None:
        order, name = self.order, self.order.spec.name
        try:
            server = self._server = await asyncio.to_thread(self._made)
            child = await server.until_listening()
        except Exception as error:
            self._door.close()
            self._tell_not_started(error, ran=self._log.total > 0)
            return
        assert server.address is not None
        self._door.address = server.address
        self.ready = Ready(order.server, self._door.key, self.on, None, None)
        self._journal.add(self.ready)
        watching = [
            spawn(self._until_alone(), name=f"watch the rpc-server for {name}"),
            spawn(self._weigh(child.pid, self._env.growth_interval), name=f"weigh {name}"),
        ]
        try:
            status = await child.wait()
        finally:
            await cancel_and_wait(*watching)
        await self._clear_away()
        self._journal.add(self._told(status))

    def _made(self) -> RpcServer:
        order, env = self.order, self._env
        program = find_rpc_server(self._program)
        if program is None:
            raise LoadFailed(f"the node {self._node!r} has no rpc-server beside its llama-server.")
        devices = [_CPU if device == RAM else device for device, _ in order.on]
        threads = order.spec.params.threads or _cores()
        return RpcServer(
            program, devices, threads, env.for_children, env.records, self._log, order.spec.name
        )

    def _told(self, status: int) -> Exited:
        lines = self._log.tail(_TAIL)
        guilty = by_request(status)
        return Exited(
            self.order.server,
            f"the rpc-server on {self._node} for {self.order.spec.name!r} {how_it_ended(status)}.",
            f"Its last lines: {' | '.join(lines)}",
            "backend_died",
            why_it_ended(status, lines, None),
            guilty,
            not guilty,
        )

    async def _until_alone(self) -> None:
        """End it when the llama-server that has used it is gone."""
        seen: float | None = None
        while seen is None or time.monotonic() - seen < _ALONE:
            if not self.unused:
                seen = time.monotonic()
            await asyncio.sleep(_LOOK)
        self.stop()

    async def _clear_away(self) -> None:
        self.ready = None
        self._door.close()
        if self._server is not None:
            await self._server.end(self._env.stop_grace)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
