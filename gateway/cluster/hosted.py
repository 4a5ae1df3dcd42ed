"""One llama-server of a node: started by an order, told of through the journal, ended and cleared
away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from gateway.backends.accounts import Accounts
from gateway.backends.backend import Environment
from gateway.backends.growth import Growth
from gateway.backends.logring import LogRing
from gateway.backends.placement import Placement, Resident
from gateway.backends.server_run import ServerRun
from gateway.backends.speed import Speed
from gateway.backends.watchdog import DEFAULT_BATCH, Hang, Watchdog
from gateway.cluster.copying import CopyProgress, Told
from gateway.cluster.front import Door
from gateway.cluster.journal import Journal
from gateway.cluster.told import (
    Began,
    Exited,
    Holds,
    Loading,
    NotStarted,
    Order,
    Prepared,
    Ready,
    ServerState,
    Stopped,
    Stopping,
    Used,
)
from gateway.errors import GatewayError
from gateway.tasks import cancel_and_wait, spawn
from gateway.upstream import Exchange, Fetched, ResponseSink, UpstreamPool, UpstreamRequest

_log = logging.getLogger(__name__)

#: Seconds between two reports of how far a load is, and the least step that is worth one.
_REPORT, _STEP = 0.5, 0.01
#: The word before the machine that a file comes from, by the stage of a copy.
_SOURCE: Final = {"copying": "from", "hashing": "on"}


class Hosted:
    """The llama-server of one order, at ``socket`` and behind the ``door`` of its gateway."""

    def __init__(
        self,
        order: Order,
        environment: Environment,
        accounts: Accounts,
        journal: Journal,
        door: Door,
        socket: Path,
        fetch: Callable[[Told], Awaitable[None]],
    ) -> None:
        """``fetch`` copies the files that are missing here, and tells how that goes."""
        self.order = order
        self.on: Placement = order.on
        self.ready: Ready | None = None
        self._env = environment
        self._accounts = accounts
        self._journal = journal
        self._door = door
        self._socket = socket
        self._asked = 0
        self._copied: tuple[str, str | None, int | None] | None = None
        self._hung: Hang | None = None
        journal.add(Began(order.server, order))
        self._log = LogRing()
        self._log.listen(lambda: journal.log(order.server, self._log.last))
        self._run = ServerRun(
            order.spec, environment, socket, self._log, accounts.without_gpu(order.spec)
        )
        self._fetch = fetch
        self._stopping: asyncio.Task[None] | None = None
        self._serving = spawn(self._serve(), name=f"serve {order.spec.name}")

    @property
    def state(self) -> ServerState:
        """What a gateway that comes later has to know."""
        return ServerState(self.order, self.ready, tuple(self._log.tail()))

    def tell_use(self) -> None:
        """Tell whether it has been used since this was called last."""
        asked = self._door.asked
        if asked != self._asked or self._door.busy:
            self._asked = asked
            self._journal.add(Used(self.order.server))

    @property
    def connections(self) -> int:
        """The number of connections that gateways have to it."""
        return self._door.connections

    @property
    def resident(self) -> Resident | None:
        """Its process and its place, as a look at the memory wants them."""
        child = self._run.child
        if child is None:
            return None
        return Resident(child.pid, self.on, settled=self.ready is not None)

    @property
    def over(self) -> bool:
        """Whether nothing of it is left."""
        return self._serving.done() and (self._stopping is None or self._stopping.done())

    async def over_with(self) -> None:
        """Return when nothing of it is left, however it ends."""
        await asyncio.wait([self._serving])
        if self._stopping is not None:
            await asyncio.wait([self._stopping])

    def stop(self, patience: float = 0.0) -> asyncio.Future[None]:
        """End it, whatever it is doing; await that nothing of it is left.

        ``patience``: seconds that connections may take to end, of other gateways of its group.
        """
        if self._stopping is None:
            self._stopping = spawn(self._stop(patience), name=f"stop {self.order.spec.name}")
        return asyncio.shield(self._stopping)

    def kill(self) -> None:
        """Kill its process: that is dealt with like any other death."""
        if (child := self._run.child) is not None:
            child.kill()

    async def _stop(self, patience: float) -> None:
        over = self._serving.done()
        if not over and self.ready is not None and patience:
            self._journal.add(Stopping(self.order.server))
            self._door.close_new()
            idle = spawn(self._door.idle(), name="wait for the last answer")
            await asyncio.wait(
                [self._serving, idle], timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            await cancel_and_wait(idle)
        await cancel_and_wait(self._serving)
        await self._clear_away()
        if not over:
            self._journal.add(Stopped(self.order.server))

    async def _serve(self) -> None:
        order, run = self.order, self._run
        try:
            await self._prepare()
        except Exception as error:
            self._tell_not_started(error, ran=False)
            return
        reports = spawn(self._report(), name=f"report on {order.spec.name}")
        try:
            child = await run.until_ready()
            run.refuse_the_cpu()
            self.on = await self._accounts.measure(order.spec, child.pid, self.on, run.tuning)
        except Exception as error:
            await self._clear_away()
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
            spawn(self._weigh(child.pid), name=f"weigh {order.spec.name}"),
        ]
        try:
            status = await child.wait()
        finally:
            await cancel_and_wait(*watching)
        end = run.how_it_ended(status, self._hung)
        await self._clear_away()
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

    def _tell_not_started(self, error: Exception, *, ran: bool) -> None:
        server, spec = self.order.server, self.order.spec
        if isinstance(error, GatewayError):
            told = NotStarted(server, error.public, error.detail, error.code, ran)
        else:
            if not isinstance(error, OSError):
                _log.error("starting %s", spec.name, exc_info=error)
            what = f"the llama-server of {spec.name!r} cannot be started."
            told = NotStarted(server, what, str(error), "load_failed", ran)
        self._journal.add(told)

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

    async def _weigh(self, group: int) -> None:
        growth = Growth(group, self.on)
        while True:
            await asyncio.sleep(self._env.growth_interval)
            on = await growth.look()
            growth.worth_telling(on)
            if on != self.on:
                self.on = on
                self._journal.add(Holds(self.order.server, on))

    async def _clear_away(self) -> None:
        self.ready = None
        self._door.close()
        await self._run.disconnect()
        await self._run.end()


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
