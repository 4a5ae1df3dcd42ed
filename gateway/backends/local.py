"""A llama-server of our own as a state machine: one process for one model.

::

    stopped --ensure_ready--> starting --/health is 200--> ready --drain--> draining
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
import copy
import logging
import math
import re
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial

import orjson

from gateway.backends import process
from gateway.backends.backend import OUT_OF_MEMORY, Backend, Environment, State
from gateway.backends.command import Command, build_command, find_program
from gateway.backends.fallback import GPU_REQUIRED, gpu_required, says_cpu_only
from gateway.backends.health import Health
from gateway.backends.oom import gpu_ran_out, looks_like_oom
from gateway.backends.options import gpu_layers
from gateway.backends.progress import Progress
from gateway.backends.runaway import RUNAWAY, describe, pass_sentence
from gateway.backends.speed import Speed
from gateway.backends.suspects import by_request
from gateway.backends.watchdog import DEFAULT_BATCH, Hang, Watchdog
from gateway.catalog import ModelSpec
from gateway.errors import BackendError, GatewayError, LoadFailed
from gateway.models.paths import resolve_model_path, split_parts
from gateway.tasks import cancel_and_wait, done, spawn
from gateway.upstream import ConnectFailed, UnixAddress, UpstreamError, UpstreamPool

_log = logging.getLogger(__name__)

#: Lines of llama-server's log that go into an error message.
TAIL = 8
#: Seconds in which /health must answer, and between two questions at least.
_HEALTH_TIMEOUT = 5.0
_HEALTH_PAUSE = 0.01
#: Seconds for which the news of a death is waited for when a connection has broken: the kernel
#: closes the sockets of a process before its parent hears of its end.
_NEWS_OF_DEATH = 1.0

#: What llama-server with ``--sleep-idle-seconds`` writes (tools/server/server-queue.cpp).
_SLEEP = re.compile(r"\b(entering|exiting) sleeping state")
#: As it writes it (src/llama-model.cpp): the output layer counts as one.
_OFFLOADED = re.compile(r"\boffloaded (\d+)/\d+ layers to GPU")
#: States in which it answers requests; in an enumeration each has to be looked for.
_ANSWERING = (State.READY, State.DRAINING)
#: States in which a llama-server process exists, so memory is in use.
_RESIDENT = frozenset({State.STARTING, State.READY, State.DRAINING, State.STOPPING})


class LocalBackend(Backend):
    """The llama-server of one :class:`ModelSpec`."""

    def __init__(
        self,
        spec: ModelSpec,
        environment: Environment,
        socket_name: str,
        changed: Callable[[Backend], None],
    ) -> None:
        super().__init__(spec, changed)
        self._env = environment
        self._socket_name = socket_name
        self._socket = environment.runtime_dir / socket_name
        self._child: process.Child | None = None
        self._recording: asyncio.Task[None] | None = None
        self._pool: UpstreamPool | None = None
        self._starting: asyncio.Task[GatewayError | None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._hung: Hang | None = None
        self._weights = 0  # bytes of the model's file
        self._layers: int | None = None  # on GPUs, as far as its llama-server says
        self._quick_deaths = 0
        self._counted = True  # the last death, among those
        self._first_line = 0  # of the log, since the last start
        self._stops = 0

    # --- what callers ask for --------------------------------------------------------------

    @property
    def pool(self) -> UpstreamPool:
        """Connections to the running llama-server."""
        if self._pool is None or self.state not in _ANSWERING:
            raise ConnectFailed(f"the backend of {self.spec.name!r} is {self.state}")
        return self._pool

    @property
    def resident(self) -> bool:
        """Whether a llama-server process exists."""
        return self.state in _RESIDENT

    @property
    def pid(self) -> int | None:
        """The llama-server process, while there is one."""
        return self._child.pid if self._child is not None else None

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

    async def suspect(self, error: UpstreamError) -> bool:
        """Wait for the news of the process's death, if there is any.

        Returns when the death has been dealt with, or after a second without one. Whatever the
        request was, nobody has heard an answer from a process that is gone.
        """
        watching = self._watching
        if watching is not None and not watching.done():
            await asyncio.wait([watching], timeout=_NEWS_OF_DEATH)
        return True

    async def reason(self, error: UpstreamError, deaths: int) -> GatewayError:
        """The death of the process, where that is it: a lost connection tells nobody anything."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NEWS_OF_DEATH):
                while self.deaths == deaths and self.state in _ANSWERING:
                    await self._next_state.wait()
        if self.deaths > deaths and self.last_death is not None:
            return copy.copy(self.last_death)  # each raises one of its own
        return error

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
            if self._lived() >= self._env.quick_death:
                self._quick_deaths = 0
            self._enter(State.STOPPING)
        return asyncio.shield(stopping)

    def reset(self) -> None:
        """Forget earlier deaths."""
        self._quick_deaths = 0
        self.retry_at = 0.0
        if self.state in (State.FAILED, State.BACKOFF):
            self._enter(State.STOPPED)

    def _look_for_sleep(self) -> None:
        """llama-server tells its own router by another way; to us it only writes a line."""
        found = _SLEEP.search(self.log.last)
        if found is not None and self.sleeping != (asleep := found[1] == "entering"):
            self.sleeping = asleep
            self._changed(self)

    # --- transitions ------------------------------------------------------------------------

    async def _start(self, prepare: Callable[[], Awaitable[None]] | None) -> GatewayError | None:
        """Start and wait until ready; a failure is the result, not raised."""
        if prepare is not None:
            await prepare()
        started = time.monotonic()
        self.start_failed = self.sleeping = False
        self.accused = []
        self.degraded = self.without_gpu
        self.starts += 1
        self.log.append(f"--- start {self.starts} of {self.spec.name} ---")
        self._first_line = self.log.total
        self._layers = None
        if any("sleep" in name.lower() for name in (*self.spec.extra_args, *self.spec.env)):
            self.log.listen(self._look_for_sleep)
        # A name of its own for each start: nothing that is late can touch the next one's socket.
        stem, _, suffix = self._socket_name.rpartition(".")
        self._socket = self._env.runtime_dir / f"{stem}-{self.starts % 1000}.{suffix}"
        try:
            command = await asyncio.to_thread(self._prepare)
        except Exception as error:
            # Nothing ran: not a death, and free to be tried again.
            self.refused(failure := self._as_failure(error))
            return self._failed(failure, State.STOPPED)
        try:
            child = await self._until_ready(command)
        except Exception as error:  # whatever it is: no child may be left behind
            failure = self._as_failure(error)
            if failure.code == GPU_REQUIRED:  # no death: it was ended by us
                self.refused(failure)
                self._enter(State.STOPPING)
                await self._clean_up()
                return self._failed(failure, State.STOPPED)
            self._died(failure)
            await self._clean_up()
            return self._failed(failure, self._after_death())
        self.load_seconds = time.monotonic() - started
        if self.degraded is not None:
            _log.warning("model %s runs on the CPU: %s", self.spec.name, self.degraded)
        self._watching = spawn(self._watch(child), name=f"watch {self.spec.name}")
        self._starting = None
        self._enter(State.READY)
        return None

    def _failed(self, failure: GatewayError, state: State) -> GatewayError:
        """The start is over, and what there was of it is cleared away."""
        self.start_error = failure
        self._starting = None
        self._enter(state)
        return failure

    async def _until_ready(self, command: Command) -> process.Child:
        child = self._child = await process.start(
            command.argv, command.env, log=self.log, name=self.spec.name
        )
        self._recording = spawn(self._record(child), name=f"record {self.spec.name}")
        pool = self._pool = UpstreamPool(
            UnixAddress(str(self._socket)),
            max_connections=self.spec.parallel + 8,  # slots, and questions beside them
            name=self.spec.name,
        )
        stop_looking = self.log.listen(self._look_for_fallback)
        try:
            await self._until_healthy(child, pool)
        finally:
            stop_looking()
        if self.tuning is not None:
            self.tuning = self.tuning.came_out(await _context_of(pool), self._layers)
            _log.info("model %s: %s", self.spec.name, self.tuning.text)
        self._refuse_the_cpu()
        return child

    def _look_for_fallback(self) -> None:
        if (found := _OFFLOADED.search(self.log.last)) is not None:
            self._layers = int(found[1])
        if says_cpu_only(self.log.last) and gpu_layers(self.spec) != 0:
            self.degraded = f"its llama-server says: {self.log.last.strip()}"

    def _refuse_the_cpu(self) -> None:
        """Raise :class:`LoadFailed` where only a GPU will do, and it uses none."""
        if self.spec.require_gpu and self.degraded is not None:
            raise gpu_required(self.spec, self.degraded)

    async def _record(self, child: process.Child) -> None:
        try:
            await asyncio.to_thread(self._env.records.write, child)
        except OSError as error:
            _log.warning("cannot note the process of %s: %s", self.spec.name, error)

    def _as_failure(self, error: Exception) -> GatewayError:
        if isinstance(error, GatewayError):
            return error
        if not isinstance(error, OSError):
            _log.error("starting %s", self.spec.name, exc_info=error)
        return LoadFailed(
            f"the llama-server of {self.spec.name!r} cannot be started.", detail=f"{error}"
        )

    def _prepare(self) -> Command:
        """Everything about a start that touches the disk; runs in a thread."""
        tuning = self.tuning
        command = build_command(
            self.spec if tuning is None else tuning.apply(self.spec),
            program=find_program(self._env.llama_server, self._env.environ),
            socket=str(self._socket),
            llm_storage=self._env.llm_storage,
            environ=self._env.for_children,
            devices=self.devices,
            variables={} if tuning is None else tuning.variables,
        )
        model = resolve_model_path(self.spec.params.model or "", self._env.llm_storage)
        if not model.is_file():
            raise LoadFailed(
                f"the model file of {self.spec.name!r} does not exist.",
                detail=f"There is no {model}. Check params.model in models.json, and llm_storage "
                "in the configuration",
                code="model_file_not_found",
            )
        self._weights = sum(part.stat().st_size for part in split_parts(model) if part.is_file())
        return command

    async def _until_healthy(self, child: process.Child, pool: UpstreamPool) -> None:
        """Return when GET /health answers 200 (it answers 503 while the model loads).

        Asked at once, after every line the child logs, and in between after pauses that grow
        to 0.25 s.
        """
        news = asyncio.Event()
        unlisten = self.log.listen(news.set)
        exited = spawn(child.wait(), name=f"exit of {self.spec.name}")
        exited.add_done_callback(lambda _: news.set())
        patience = self._env.load_timeout
        progress, pause = Progress(child.pid, self.log, patience), 0.02
        health = Health(pool, min(_HEALTH_TIMEOUT, patience))
        self.progress = None
        try:
            while not exited.done():
                news.clear()
                self._refuse_the_cpu()
                if await health.is_ready():
                    return
                if health.said is not None and health.refuses_for >= self._env.health_refusal:
                    raise self._load_failed(child, health.said)
                stalled = await progress.stalled()
                self.progress = progress.part_of(self._weights)
                if stalled:
                    what = f"made no progress for {patience:g} s while loading"
                    what += f", and {health.said}" if health.said is not None else ""
                    raise self._load_failed(child, what)
                await asyncio.sleep(_HEALTH_PAUSE)  # however much it logs
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await news.wait()
                pause = min(pause * 1.5, 0.25)
            raise self._load_failed(child, "ended while it was loading")
        finally:
            unlisten()
            exited.cancel()
            self.progress = None

    async def _watch(self, child: process.Child) -> None:
        """Notice at once when a ready child exits without being asked to, or hangs."""
        self._hung = None
        guard = spawn(self._guard(child), name=f"guard {self.spec.name}")
        try:
            status = await child.wait()
        finally:
            await cancel_and_wait(guard)
        if self._stopping is not None:
            return
        hung = self._hung
        ended = f"{hung.what} and was ended" if hung else _how_it_ended(status)
        what = f"the llama-server of {self.spec.name!r} {ended}."
        if hung is not None and hung.verdict is not None:
            self.last_death = BackendError(what, code=RUNAWAY, detail=describe(hung.verdict))
        else:
            self.last_death = BackendError(what, code="backend_died", detail=self._last_lines())
        # One that hung was ended by us, for what it was asked, unless it was stopped from outside.
        if hung is not None:
            self.by_request = not hung.stopped
        else:
            self.by_request = by_request(status) and not gpu_ran_out(self._tail())
        self._died(self.last_death, counts=not self.by_request)
        await self._clean_up()
        self._enter(self._after_death())

    async def _guard(self, child: process.Child) -> None:
        """Kill a child that hangs: its death is dealt with like any other."""
        speed = Speed(self.log, self._weights)
        unlisten = self.log.listen(speed.hear)
        batch = max(self.spec.params.batch_size or 0, DEFAULT_BATCH)
        patience = self._env.patience
        try:
            self._hung = hung = await Watchdog(
                self.pool, child.pid, patience, self.flights, speed, batch=batch
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
            await self._clean_up()
        finally:
            self._stopping = None
            self._enter(State.STOPPED)

    async def _clean_up(self) -> None:
        """End what is left of the child, its connections, its socket and its record.

        A call that was cancelled can be made again and goes on.
        """
        if self._pool is not None:
            await self._pool.close()
            self._pool = None
        self.flights.clear()
        if (child := self._child) is not None:
            await child.stop(self._env.stop_grace)
            if self._recording is not None:
                await asyncio.wait([self._recording])
        # Without a child too: one whose start was cancelled may have come as far as its socket.
        await asyncio.to_thread(self._remove_traces, child)
        self._child = self._recording = None

    def _remove_traces(self, child: process.Child | None) -> None:
        steps: list[Callable[[], None]] = [self._socket.unlink]
        if child is not None:
            steps.append(partial(self._env.records.remove, child))
        for remove in steps:
            try:
                remove()
            except FileNotFoundError:
                pass
            except OSError as error:
                _log.warning("cannot clear up after %s: %s", self.spec.name, error)

    def _lived(self) -> float:
        """Seconds for which it has been ready."""
        if self.ready_since is None or self.state not in (State.READY, State.DRAINING):
            return 0.0
        return time.monotonic() - self.ready_since

    def _died(self, error: GatewayError, *, counts: bool = True) -> None:
        """Note a death, and take no more requests at once.

        ``counts``: it says something about the model, or this machine, rather than of a request.
        """
        self.deaths += 1
        self.last_error = error
        _log.error("model %s: %s", self.spec.name, error.message)
        if counts:
            quick = self._lived() < self._env.quick_death
            self._quick_deaths = self._quick_deaths + 1 if quick else 1
        self._counted = counts
        self._enter(State.STOPPING)

    def _after_death(self) -> State:
        """It has died and is cleared away: what it is in now, until :attr:`retry_at`."""
        further = self._quick_deaths - self._env.quick_deaths_allowed
        if self._counted and further >= 0:
            pause = min(self._env.failed_first * 2.0 ** min(further, 32), self._env.failed_cap)
            self.retry_at = time.monotonic() + pause
            return State.FAILED
        wait = self._env.backoff_first * 2 ** max(0, self._quick_deaths - 1)
        self.retry_at = time.monotonic() + min(wait, self._env.backoff_cap)
        return State.BACKOFF

    def _was_stopped(self) -> GatewayError:
        return BackendError(f"{self.spec.name!r} was stopped while it was loading")

    def failure(self) -> GatewayError:
        """Why a ``failed`` backend is not started again."""
        cause = self.last_error
        wait = max(1, math.ceil(self.retry_at - time.monotonic()))
        return LoadFailed(
            f"{self.spec.name!r} failed {self._quick_deaths} times in a row and tries again in "
            f"{wait} s, or when it is loaded explicitly or its entry in models.json changes. "
            f"{cause.public if cause else 'it died too often'}",
            detail=cause.detail if cause else None,
            headers={"Retry-After": str(wait)},
        )

    def _load_failed(self, child: process.Child, what: str) -> LoadFailed:
        status = child.returncode
        if status is not None:
            what = f"{_how_it_ended(status)} while it was loading"
        lines = self.log.tail(self.log.total - self._first_line)
        return LoadFailed(
            f"the llama-server of {self.spec.name!r} {what}.",
            detail=self._last_lines(),
            code=OUT_OF_MEMORY if looks_like_oom(status, lines) else None,
        )

    def _tail(self) -> list[str]:
        """The last lines of its log since it was started."""
        return self.log.tail(min(TAIL, self.log.total - self._first_line))

    def _last_lines(self) -> str:
        lines = [line for line in self._tail() if line]
        return "Its last lines: " + " | ".join(lines) if lines else ""


async def _context_of(pool: UpstreamPool) -> int | None:
    """The tokens of context that a request gets, as llama-server says at GET /props."""
    try:
        fetched = await pool.fetch("GET", "/props", timeout=_HEALTH_TIMEOUT)
        context = orjson.loads(fetched.body)["default_generation_settings"]["n_ctx"]
    except (GatewayError, LookupError, TypeError, ValueError):
        return None  # it is of use without
    return context if isinstance(context, int) and context > 0 else None


def _how_it_ended(status: int) -> str:
    """An exit status in words. Negative is a signal, as subprocess has it."""
    if status >= 0:
        return f"exited with status {status}"
    if -status == signal.SIGILL:
        return (
            "was ended by SIGILL: it was compiled for a CPU with instructions this one lacks; "
            "use another build of llama.cpp"
        )
    if -status == signal.SIGKILL:
        return "was killed (SIGKILL), often by the system when memory runs out"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"
