"""The backend of a local model as a state machine: one llama-server process for one model.

::

    stopped ----start------> starting --/health is 200--> ready --drain--> draining
       ^                         |                           |                 |
       |                         | died or timed out         | died            | stop
       +------- stopping <-------+---------------------------+-----------------+
                  |
                  | if nobody asked for its end
                  v
    backoff (may start again when the wait is over)   failed (died too often; the same, with
                                                      waits that are longer, or reset())

For requests it is a pool of connections to the process's Unix socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.backends.backend import Backend, Environment, State
from gateway.backends.counts import Ended
from gateway.backends.deaths import Deaths, not_started
from gateway.backends.fallback import GPU_REQUIRED
from gateway.backends.log_requests import LogRequests
from gateway.backends.news_of_death import CERTAIN_NEWS, NEWS_OF_DEATH, reason_of
from gateway.backends.run import NODE_LOST, End, Run, RunningChild
from gateway.backends.runaway import pass_sentence
from gateway.backends.served import Served
from gateway.backends.server_run import ServerRun
from gateway.backends.speed import Speed
from gateway.backends.watchdog import DEFAULT_BATCH, Hang, Watchdog
from gateway.errors import BackendError, GatewayError, LoadFailed
from gateway.models.local_model import LocalModel
from gateway.tasks import cancel_and_wait, done, spawn
from gateway.upstream import ConnectFailed, UpstreamError, UpstreamPool

_log = logging.getLogger(__name__)

#: The log lines of llama-server with ``--sleep-idle-seconds`` (tools/server/server-queue.cpp).
_SLEEP = re.compile(r"\b(entering|exiting) sleeping state")
#: The states in which it answers requests; a tuple, which is faster to search than an enumeration.
_ANSWERING = (State.READY, State.DRAINING)
#: The states in which a llama-server process exists, and takes memory.
_RESIDENT = frozenset({State.STARTING, State.READY, State.DRAINING, State.STOPPING})


class LocalBackend(Backend):
    """The llama-server of one :class:`LocalModel`."""

    spec: LocalModel

    def __init__(
        self,
        spec: LocalModel,
        environment: Environment,
        socket_name: str,
        changed: Callable[[Backend], None],
    ) -> None:
        super().__init__(spec, changed)
        self._env = environment
        self._socket_name = socket_name
        self._run: Run | None = None  # until nothing of it is left
        self._watching: asyncio.Task[None] | None = None
        self._hung: Hang | None = None
        self._deaths = Deaths(environment)
        self._stops = 0
        self._deaf: Callable[[], None] = lambda: None  # ends that it listens to its log

    # --- what callers ask for --------------------------------------------------------------

    @property
    def pool(self) -> UpstreamPool:
        """The connections to the running llama-server."""
        run = self._run
        if run is None or run.pool is None or self.state not in _ANSWERING:
            raise ConnectFailed(f"the backend of {self.spec.name!r} is {self.state}")
        return run.pool

    @property
    def resident(self) -> bool:
        """Whether a llama-server process exists."""
        return self.state in _RESIDENT

    @property
    def pid(self) -> int | None:
        """The id of the llama-server process, while there is one."""
        child = self._run.child if self._run is not None else None
        return child.pid if child is not None else None

    @property
    def progress(self) -> float | None:
        """The loaded share of the model while it starts."""
        return self._run.progress if self._run is not None else None

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint that saved slots must have to fit it."""
        return self._run.fingerprint if self._run is not None else None

    @property
    def degraded(self) -> str | None:
        """Why it runs on the CPU though it shouldn't."""
        return self._run.degraded if self._run is not None else None

    async def ensure_ready(self) -> None:
        """Return when /health is 200, starting a process first where that is needed."""
        stops = self._stops
        while self.state is not State.READY:
            if self.state is State.FAILED and self.retry_at > time.monotonic():
                raise self.failure()
            if self.state is State.DRAINING:
                raise BackendError(f"the backend of {self.spec.name!r} is being unloaded")
            if self._stopping is not None:
                await asyncio.wait([self._stopping])
            elif self._starting is not None:
                await self._join(self._starting)
            elif self.state is State.STOPPING:  # it died, and is being cleared away
                assert self._watching is not None
                await asyncio.wait([self._watching])
            elif self._stops != stops:
                raise self._was_stopped()
            elif self.state is State.BACKOFF and (wait := self.retry_at - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._next_state.wait()
            else:
                self.start()

    def start(self, prepare: Callable[[], Awaitable[None]] | None = None) -> None:
        """Begin to start a process."""
        assert self._starting is None
        assert not self.resident, self.state
        self.start_error = None
        self._starting = spawn(self._start(prepare), name=f"start {self.spec.name}")
        self._enter(State.STARTING)

    async def _join(self, starting: asyncio.Task[GatewayError | None]) -> None:
        await asyncio.wait([starting])
        if starting.cancelled():
            raise self._was_stopped()
        if (failure := starting.result()) is not None:
            raise failure

    async def suspect(self, *, refused: bool = False) -> None:
        """Wait for the news of the process's death, if there is any.

        Returns when the death has been dealt with, or after a second without one; after ten where
        a connection was ``refused``, which a process that lives does not do.
        """
        watching = self._watching
        if watching is not None and not watching.done():
            await asyncio.wait([watching], timeout=CERTAIN_NEWS if refused else NEWS_OF_DEATH)

    async def reason(self, error: UpstreamError, deaths: int) -> GatewayError:
        """Return the death of the process, where that is it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NEWS_OF_DEATH):
                while self.deaths == deaths and self.state in _ANSWERING:
                    await self._next_state.wait()
        return reason_of(error, self, deaths)

    def stop(self) -> asyncio.Future[None]:
        """End the process, whatever it is doing; await that it is gone and reaped."""
        self._stops += 1
        stopping = self._stopping
        if stopping is None:
            if not self.resident:
                if self.state is State.BACKOFF:
                    self._enter(State.STOPPED)
                return done()
            stopping = self._stopping = spawn(self._stop(), name=f"stop {self.spec.name}")
            self._deaths.note_end(self._lived())
            self._enter(State.STOPPING)
        return asyncio.shield(stopping)

    def reset(self) -> None:
        """Forget earlier deaths."""
        self._deaths.forget()
        self.retry_at = 0.0
        if self.state in (State.FAILED, State.BACKOFF):
            self._enter(State.STOPPED)

    def _listen_for_sleep(self) -> None:
        self._deaf()
        if any("sleep" in name.lower() for name in (*self.spec.extra_args, *self.spec.env)):
            self._deaf = self.log.listen(self._look_for_sleep)

    def _look_for_sleep(self) -> None:
        """Notice in the log that llama-server falls asleep, or wakes up: it reports that nowhere
        else.
        """
        found = _SLEEP.search(self.log.last)
        if found is not None and self.sleeping != (asleep := found[1] == "entering"):
            self.sleeping = asleep
            self._changed(self)

    # --- transitions ------------------------------------------------------------------------

    async def _start(self, prepare: Callable[[], Awaitable[None]] | None) -> GatewayError | None:
        """Start and wait until ready; a failure is the result, not raised."""
        started = time.monotonic()
        self.start_failed = self.sleeping = False
        self.accused = []
        self.starts += 1
        self.log.append(f"--- start {self.starts} of {self.spec.name} ---")
        self.log.mark = LogRequests(self.spec.name, self.flights, self._env.tasks).mark
        self._listen_for_sleep()
        run = self._run = self._new_run()
        try:
            if prepare is not None:
                await prepare()
                started = time.monotonic()
            await run.prepare(self.tuning, self.devices)
        except Exception as error:
            # Nothing ran: not a death, and free to be tried again.
            self._run = None
            self.refused(failure := self._as_failure(error))
            return self._failed(failure, State.STOPPED)
        try:
            child = await run.until_ready()
            if run.tuning is not None:
                self.tuning = run.tuning
                _log.info("model %s: %s", self.spec.name, run.tuning.text)
            run.refuse_the_cpu()
        except Exception as error:  # whatever it is: no child may be left behind
            failure = self._as_failure(error)
            if failure.code == GPU_REQUIRED:  # no death: it was ended by us
                self.refused(failure)
                self._enter(State.STOPPING)
                await self._clean_up()
                return self._failed(failure, State.STOPPED)
            self._died(failure, not_started(failure), counts=failure.code != NODE_LOST)
            await self._clean_up()
            return self._failed(failure, self._after_death())
        self._give_way()
        self.load_seconds = time.monotonic() - started
        if run.degraded is not None:
            _log.warning("model %s runs on the CPU: %s", self.spec.name, run.degraded)
        self._watching = spawn(self._watch(run, child), name=f"watch {self.spec.name}")
        self._starting = None
        server = self._server
        self._enter(State.READY)
        if self._env.slot_saves is not None and self.state is State.READY:
            self._env.slot_saves.arrived(server)
        return None

    @property
    def _server(self) -> Served:
        """What its requests are sent to."""
        return self

    def _new_run(self) -> Run:
        return ServerRun(self.spec, self._env, self._next_socket(), self.log, self.without_gpu)

    def _next_socket(self) -> Path:
        # A name of its own for each start: no leftover can touch the next one's socket.
        stem, _, suffix = self._socket_name.rpartition(".")
        return self._env.runtime_dir / f"{stem}-{self.starts % 1000}.{suffix}"

    def _failed(self, failure: GatewayError, state: State) -> GatewayError:
        """End a failed start, of which everything has been cleaned up, and enter ``state``."""
        self._give_way()
        self.start_error = failure
        self._starting = None
        self._enter(state)
        return failure

    def _as_failure(self, error: Exception) -> GatewayError:
        if isinstance(error, GatewayError):
            return error
        if not isinstance(error, OSError):
            _log.error("starting %s", self.spec.name, exc_info=error)
        return LoadFailed(
            f"the llama-server of {self.spec.name!r} cannot be started.", detail=f"{error}"
        )

    async def _watch(self, run: Run, child: RunningChild) -> None:
        """Notice at once when a ready child exits without being asked to, or hangs."""
        self._hung = None
        guard = spawn(self._guard(run, child), name=f"guard {self.spec.name}")
        try:
            status = await child.wait()
        finally:
            await cancel_and_wait(guard)
        if self._stopping is not None:
            return
        end = run.how_it_ended(status, self._hung)
        if await self._goes_on(run, end):
            return
        self.last_death, self.by_request = end.error, end.by_request
        self._died(end.error, end.why, counts=end.counts)
        await self._clean_up()
        self._enter(self._after_death())

    async def _goes_on(self, run: Run, end: End) -> bool:
        """Return whether the model goes on without ``run``, which has ended so."""
        return False

    async def _guard(self, run: Run, child: RunningChild) -> None:
        """Kill a child that hangs: its death is dealt with like any other."""
        if (pool := run.pool) is None or child.pid is None:
            return  # it is stopped already, in the moment when it became ready
        speed = Speed(self.log, run.weights)
        unlisten = self.log.listen(speed.hear)
        try:
            self._hung = hung = await Watchdog(
                pool,
                child.pid,
                self._env.patience,
                self.flights,
                speed,
                batch=max(self.spec.params.batch_size or 0, DEFAULT_BATCH),
                looks=self.slot_looks,
            ).hung()
        finally:
            unlisten()
        _log.error("model %s: its llama-server %s", self.spec.name, hung.what)
        if hung.verdict is not None:
            pass_sentence(self.spec.name, hung.what, hung.verdict)
        child.kill()

    async def _stop(self) -> None:
        try:
            await cancel_and_wait(self._starting, self._watching)
            self._starting = self._watching = None
            await self._save_slots()
            await self._clean_up()
        finally:
            self._stopping = None
            self._enter(State.STOPPED)

    async def _save_slots(self) -> None:
        saves, run = self._env.slot_saves, self._run
        if saves is not None and run is not None and run.pool is not None:
            await saves.leave(self._server, run.pool)

    async def _clean_up(self) -> None:
        """End what is left of the run. A call that was cancelled can be made again and goes on."""
        if (run := self._run) is not None:
            await run.disconnect()
            self.flights.clear()
            await run.end()
            self._run = None

    def _lived(self) -> float:
        """Return seconds for which it has been ready."""
        if self.ready_since is None or self.state not in (State.READY, State.DRAINING):
            return 0.0
        return time.monotonic() - self.ready_since

    def _died(self, error: GatewayError, why: Ended, *, counts: bool = True) -> None:
        """Note a death, and take no more requests at once.

        ``counts``: it says something about the model, or this machine, rather than of a request.
        """
        self.deaths += 1
        self._env.counts.ends[self.spec.name, why] += 1
        self.last_error = error
        _log.error("model %s: %s", self.spec.name, error.message)
        self._deaths.note(self._lived(), counts=counts)
        self._enter(State.STOPPING)

    def _after_death(self) -> State:
        """Return the state after a death, which lasts until :attr:`retry_at`."""
        state, pause = self._deaths.sentence()
        self.retry_at = time.monotonic() + pause
        return state

    def _was_stopped(self) -> GatewayError:
        return BackendError(f"{self.spec.name!r} was stopped while it was loading")

    def failure(self) -> GatewayError:
        """Return why a ``failed`` backend is not started again."""
        cause = self.last_error
        wait = max(1, math.ceil(self.retry_at - time.monotonic()))
        return LoadFailed(
            f"{self.spec.name!r} failed {self._deaths.quick} times in a row and tries again in "
            f"{wait} s, or when it is loaded explicitly or its entry in models.json changes. "
            f"{cause.public if cause else 'it died too often'}",
            detail=cause.detail if cause else None,
            headers={"Retry-After": str(wait)},
        )
