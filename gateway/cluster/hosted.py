"""One llama-server of a node: started by an order, told of through the journal, ended and cleared
away.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from gateway.backends.accounts import Accounts
from gateway.backends.backend import Environment
from gateway.backends.counts import Ended
from gateway.backends.process import Child
from gateway.backends.run import End
from gateway.backends.server_run import ServerRun
from gateway.backends.speed import Speed
from gateway.backends.watchdog import DEFAULT_BATCH, Hang, Watchdog
from gateway.cluster.copying import CopyProgress, Told
from gateway.cluster.front import Door
from gateway.cluster.journal import Journal
from gateway.cluster.ordered import Ordered
from gateway.cluster.parts import Parts, led
from gateway.cluster.told import PART_LOST, Exited, Loading, Order, Prepared, Ready
from gateway.errors import BackendError, LoadFailed
from gateway.tasks import cancel_and_wait, spawn
from gateway.upstream import Exchange, Fetched, ResponseSink, UpstreamPool, UpstreamRequest

_log = logging.getLogger(__name__)

#: Seconds between two reports of how far a load is, and the least step that is worth one.
_REPORT, _STEP = 0.5, 0.01
#: The word before the machine that a file comes from, by the stage of a copy.
_SOURCE: Final = {"copying": "from", "hashing": "on"}


class Hosted(Ordered):
    """The llama-server of one order, at ``socket`` and behind the ``door`` of its gateway."""

    what = "llama-server"

    def __init__(
        self,
        order: Order,
        environment: Environment,
        accounts: Accounts,
        journal: Journal,
        door: Door,
        socket: Path,
        fetch: Callable[[Told], Awaitable[None]],
        ways: ssl.SSLContext,
    ) -> None:
        """``fetch`` copies the files that are missing here, and tells how that goes; ``ways`` is
        for connections to other nodes, which lend it devices.
        """
        super().__init__(order, journal, door)
        self._env = environment
        self._accounts = accounts
        self._copied: tuple[str, str | None, int | None] | None = None
        self._hung: Hang | None = None
        self._fetch = fetch
        self._parts: Parts | None = None
        spec, degraded = order.spec, accounts.without_gpu(order.spec)
        if order.helpers:
            spec, degraded = led(spec), None
            self._parts = Parts(spec, order.helpers, ways, self.kill)
        self._run = ServerRun(spec, environment, socket, self._log, degraded)

    @property
    def _child(self) -> Child | None:
        return self._run.child

    async def _serve(self) -> None:
        order, run = self.order, self._run
        try:
            await self._prepare()
        except Exception as error:
            await self._clear_away()
            self._tell_not_started(error, ran=False)
            return
        reports = spawn(self._report(), name=f"report on {order.spec.name}")
        try:
            child = await run.until_ready()
            run.refuse_the_cpu()
            if self._parts is None:  # only of a whole model it is known what was measured
                self.on = await self._accounts.measure(order.spec, child.pid, self.on, run.tuning)
        except Exception as error:
            broken = self._broken
            await self._clear_away()
            if broken is not None:
                error = LoadFailed(broken, detail=str(error), code=PART_LOST)
            self._tell_not_started(error, ran=True)
            return
        finally:
            await cancel_and_wait(reports)
        self.ready = Ready(
            order.server, self._door.key, self.on, run.degraded, run.tuning, run.fingerprint
        )
        self._journal.add(self.ready)
        watching = [
            spawn(self._guard(child.pid), name=f"guard {order.spec.name}"),
            spawn(
                self._weigh(child.pid, self._env.growth_interval), name=f"weigh {order.spec.name}"
            ),
        ]
        try:
            status = await child.wait()
        finally:
            await cancel_and_wait(*watching)
        end, broken = run.how_it_ended(status, self._hung), self._broken
        await self._clear_away()
        if broken is not None:
            lost = BackendError(broken, code=PART_LOST)
            end = End(lost, Ended.NODE_LOST, counts=False)
        why = end.error
        self._journal.add(
            Exited(
                order.server,
                why.public,
                why.detail,
                why.code,
                end.why,
                end.by_request,
                end.counts,
            )
        )

    async def _prepare(self) -> None:
        order, accounts = self.order, self._accounts
        if order.offers:
            await self._fetch(self._copies)
        if self._parts is not None:
            await self._prepare_parts(self._parts)
            return
        spec, tuning = order.spec, None
        grant = accounts.grant(spec, order.on, order.taken, shared=order.shared, share=order.share)
        if grant is not None:
            self.on = grant.placement(order.on)
            tuning = await accounts.choose(spec, grant)
            if tuning is not None and tuning.needs is not None:
                self.on = grant.placement(self.on, tuning.needs)
        run = self._run
        await run.prepare(tuning, accounts.flags(spec, self.on))
        self._journal.add(Prepared(order.server, self.on, run.weights, run.degraded))

    async def _prepare_parts(self, parts: Parts) -> None:
        order, run = self.order, self._run
        capacity = self._accounts.capacity
        gpus: list[str] = []
        if capacity is not None and capacity.machine.gpu:
            gpus = [device.name for device in capacity.machine.devices]
        division = await parts.open(self.on, gpus, self._env.llm_storage)
        await run.prepare(None, division.devices, division.variables)
        self._journal.add(Prepared(order.server, self.on, run.weights, run.degraded))

    @property
    def _broken(self) -> str | None:
        return self._parts.broken if self._parts is not None else None

    def _copies(self, progress: CopyProgress) -> None:
        """Tell how far a copy is: the first of what a load does, with a part of its own."""
        part = progress.done / progress.total if progress.total else None
        told = progress.stage, progress.source, None if part is None else int(part / _STEP)
        if told != self._copied:
            self._copied = told
            stage = f"{progress.stage} {progress.file}" if progress.file else progress.stage
            if (word := _SOURCE.get(progress.stage)) is not None and progress.source is not None:
                stage += f" {word} {progress.source}"
            self._journal.add(Loading(self.order.server, part, stage))

    async def _report(self) -> None:
        told = 0.0
        while True:
            part = self._run.progress
            if part is not None and part - told >= _STEP:
                told = part
                self._journal.add(Loading(self.order.server, part))
            await asyncio.sleep(_REPORT)

    async def _guard(self, group: int) -> None:
        """Kill it if it hangs. Which requests it has, only the gateway knows; here it is whether
        anybody is connected, which a gateway is for four seconds longer at most.
        """
        run, spec = self._run, self.order.spec
        assert run.pool is not None
        speed = Speed(self._log, run.weights)
        unlisten = self._log.listen(speed.hear)
        try:
            self._hung = await Watchdog(
                _Watched(run.pool, self._door),
                group,
                self._env.patience,
                self._door.flights,
                speed,
                batch=max(spec.params.batch_size or 0, DEFAULT_BATCH),
            ).hung()
        finally:
            unlisten()
        _log.error("model %s: its llama-server %s", spec.name, self._hung.what)
        self.kill()

    async def _clear_away(self) -> None:
        self.ready = None
        self._door.close()
        await self._run.disconnect()
        await self._run.end()
        if self._parts is not None:
            await self._parts.close()


class _Watched:
    """The connections through ``door``, to a watchdog, and ours, through which it asks."""

    def __init__(self, pool: UpstreamPool, door: Door) -> None:
        self._pool = pool
        self._door = door

    @property
    def exchanges(self) -> int:
        return self._door.connections

    async def send(self, request: UpstreamRequest, sink: ResponseSink) -> Exchange:
        return await self._pool.send(request, sink)

    async def fetch(
        self, request: UpstreamRequest, *, timeout: float, max_body: int = 2**20
    ) -> Fetched:
        return await self._pool.fetch(request, timeout=timeout, max_body=max_body)
