"""One model's llama-server as a state machine.

::

    stopped --ensure_ready--> starting --/health is 200--> ready --drain--> draining
       ^                         |                           |                 |
       |                         | died or timed out         | died            | stop
       +------- stopping <-------+---------------------------+-----------------+
       |
    backoff (died; may start again when the wait is over)   failed (died too often; waits for
                                                            reset() or a changed models.json)

Callers never look first: ``await ensure_ready()`` does whatever is needed, or raises. What to
start and stop, and when, is decided by the scheduler alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.backends import process
from gateway.backends.command import Command, build_command, find_program, resolve_model_path
from gateway.backends.logring import LogRing
from gateway.catalog import ModelSpec
from gateway.errors import BackendError, GatewayError, LoadFailed
from gateway.proxy.upstream import UnixAddress, UpstreamPool
from gateway.tasks import spawn

_log = logging.getLogger(__name__)

#: Lines of llama-server's log that go into an error message.
TAIL = 8


class State(enum.StrEnum):
    """Where a backend is; see the module docstring."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


#: States in which a llama-server process exists, so memory is in use.
RESIDENT = frozenset({State.STARTING, State.READY, State.DRAINING, State.STOPPING})


@dataclass(frozen=True, slots=True)
class Environment:
    """What every backend of one gateway shares. Times in seconds."""

    llama_server: str
    llm_storage: Path
    runtime_dir: Path
    environ: Mapping[str, str]
    records: process.Records
    load_timeout: float
    stop_grace: float = 10.0
    #: First wait after a death, doubled for each further one in a row, up to the cap.
    backoff_first: float = 0.5
    backoff_cap: float = 60.0
    #: A death within so long after the start is a quick one; so many in a row mean "failed".
    quick_death: float = 60.0
    quick_deaths_allowed: int = 4


class Backend:
    """The llama-server of one :class:`ModelSpec`.

    ``changed`` is called (from the event loop) after every change of state.
    """

    def __init__(
        self,
        spec: ModelSpec,
        environment: Environment,
        socket_name: str,
        changed: Callable[[Backend], None],
    ) -> None:
        self.spec = spec
        self.log = LogRing()
        self.state = State.STOPPED
        self.since = time.monotonic()  # of the present state
        self.ready_since: float | None = None
        self.load_seconds: float | None = None  # how long the last start took
        self.starts = 0
        self.deaths = 0  # exits nobody asked for, in all
        self.last_error: GatewayError | None = None
        self.retry_at = 0.0  # monotonic time before which BACKOFF lasts
        self._env = environment
        self._socket = environment.runtime_dir / socket_name
        self._changed = changed
        self._child: process.Child | None = None
        self._pool: UpstreamPool | None = None
        self._starting: asyncio.Task[GatewayError | None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._quick_deaths = 0

    # --- what callers ask for --------------------------------------------------------------

    @property
    def pool(self) -> UpstreamPool:
        """Connections to the running llama-server. Raises :class:`BackendError` if none runs."""
        if self._pool is None or self.state not in (State.READY, State.DRAINING):
            raise BackendError(f"the backend of {self.spec.name!r} is {self.state}")
        return self._pool

    @property
    def pid(self) -> int | None:
        """The llama-server process, while there is one."""
        return self._child.pid if self._child is not None else None

    async def ensure_ready(self) -> None:
        """Return when the backend is ready, starting it first where that is needed.

        Any number of callers may wait; cancelling one does not stop the start. Raises
        :class:`LoadFailed` if the start fails, or at once while the backend is ``failed``.
        """
        while self.state is not State.READY:
            if self.state is State.FAILED:
                raise self.failure()
            if self._stopping is not None:
                await asyncio.shield(self._stopping)
                continue
            if (wait := self.retry_at - time.monotonic()) > 0 and self.state is State.BACKOFF:
                await asyncio.sleep(wait)
                continue
            if self.state is State.DRAINING:
                raise BackendError(f"the backend of {self.spec.name!r} is being unloaded")
            if self._starting is None:
                self._starting = spawn(self._start(), name=f"start {self.spec.name}")
            starting = self._starting
            await asyncio.wait([starting])
            if starting.cancelled():
                raise BackendError(f"{self.spec.name!r} was stopped while it was loading")
            if (failure := starting.result()) is not None:
                raise failure

    async def suspect(self) -> None:
        """A connection broke: wait for the news of the process's death, if there is any.

        Returns when the death has been dealt with, or after a second without one.
        """
        watching = self._watching
        if watching is not None and not watching.done():
            await asyncio.wait([watching], timeout=1.0)

    def drain(self) -> None:
        """Take no new work; what runs may finish. Only ``ready`` can be drained."""
        if self.state is State.READY:
            self._enter(State.DRAINING)

    def undrain(self) -> None:
        """Take work again."""
        if self.state is State.DRAINING:
            self._enter(State.READY)

    async def stop(self) -> None:
        """End the process, whatever it is doing, and return when it is gone and reaped."""
        if self._stopping is None:
            if self.state not in RESIDENT:
                if self.state is State.BACKOFF:
                    self._enter(State.STOPPED)
                return
            self._stopping = spawn(self._stop(), name=f"stop {self.spec.name}")
        await asyncio.shield(self._stopping)

    def reset(self) -> None:
        """Forget earlier deaths: somebody explicitly asked for this model again."""
        self._quick_deaths = 0
        self.retry_at = 0.0
        if self.state in (State.FAILED, State.BACKOFF):
            self._enter(State.STOPPED)

    # --- transitions ------------------------------------------------------------------------

    def _enter(self, state: State) -> None:
        if state is self.state:
            return
        _log.info("model %s: %s -> %s", self.spec.name, self.state, state)
        self.state = state
        self.since = time.monotonic()
        self.ready_since = self.since if state is State.READY else self.ready_since
        self._changed(self)

    async def _start(self) -> GatewayError | None:
        try:
            return await self._try_to_start()
        finally:
            self._starting = None

    async def _try_to_start(self) -> GatewayError | None:
        """Start and wait until ready; an expected failure is the result, not raised."""
        self._enter(State.STARTING)
        self.starts += 1
        started = time.monotonic()
        self.log.append(f"--- start {self.starts} of {self.spec.name} ---")
        try:
            command = await asyncio.to_thread(self._prepare)
        except GatewayError as error:  # nothing ran: not a death, and free to be tried again
            self.last_error = error
            _log.error("model %s: %s", self.spec.name, error.message)
            self._enter(State.STOPPED)
            return error
        try:
            child = await self._spawn(command)
            pool = self._pool = UpstreamPool(
                UnixAddress(str(self._socket)),
                max_connections=self.spec.parallel + 8,  # slots, and questions beside them
                name=self.spec.name,
            )
            await self._until_healthy(child, pool)
        except GatewayError as error:
            await self._clean_up()
            self._died(error, started)
            return error
        self.load_seconds = time.monotonic() - started
        self._watching = spawn(self._watch(child, started), name=f"watch {self.spec.name}")
        self._enter(State.READY)
        return None

    async def _spawn(self, command: Command) -> process.Child:
        try:
            child = self._child = await process.start(
                command.argv, command.env, log=self.log, name=self.spec.name
            )
        except OSError as error:
            raise LoadFailed(f"cannot start {command.argv[0]}: {error.strerror}") from error
        await asyncio.to_thread(self._env.records.write, child.pid, self.spec.name)
        return child

    def _prepare(self) -> Command:
        """Everything about a start that touches the disk; runs in a thread."""
        command = build_command(
            self.spec,
            program=find_program(self._env.llama_server, self._env.environ),
            socket=str(self._socket),
            llm_storage=self._env.llm_storage,
            environ=self._env.environ,
        )
        model = resolve_model_path(self.spec.params.model or "", self._env.llm_storage)
        if not model.is_file():
            raise LoadFailed(
                f"the model file of {self.spec.name!r} does not exist: {model}. Check params.model "
                "in models.json, and llm_storage in the configuration",
                code="model_file_not_found",
            )
        self._socket.unlink(missing_ok=True)
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
        progress, lines, pause = time.monotonic(), self.log.total, 0.02
        try:
            while not exited.done():
                news.clear()
                if await _is_healthy(pool):
                    return
                if self.log.total != lines:
                    lines, progress = self.log.total, time.monotonic()
                elif time.monotonic() - progress > self._env.load_timeout:
                    raise self._load_failed(
                        child, f"made no progress for {self._env.load_timeout:g} s while loading"
                    )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await news.wait()
                pause = min(pause * 1.5, 0.25)
            raise self._load_failed(child, "ended while it was loading")
        finally:
            unlisten()
            exited.cancel()

    async def _watch(self, child: process.Child, started: float) -> None:
        """Notice at once when a ready child exits without being asked to."""
        status = await child.wait()
        if self._child is not child or self._stopping is not None:
            return
        error = BackendError(
            f"the llama-server of {self.spec.name!r} {_how_it_ended(status)}.{self._last_lines()}"
        )
        await self._clean_up()
        self._died(error, started)

    async def _stop(self) -> None:
        self._enter(State.STOPPING)
        try:
            if self._starting is not None:
                self._starting.cancel()
                await asyncio.wait([self._starting])
            if self._pool is not None:
                self._pool.abort_all()
            await self._clean_up()
        finally:
            self._stopping = None
            self._enter(State.STOPPED)

    async def _clean_up(self) -> None:
        """End what is left of the child, its connections, its socket and its record."""
        pool, self._pool = self._pool, None
        child, self._child = self._child, None
        if pool is not None:
            await pool.close()
        if child is not None:
            await child.stop(self._env.stop_grace)
            await asyncio.to_thread(self._env.records.remove, child.pid)
        await asyncio.to_thread(self._socket.unlink, missing_ok=True)

    def _died(self, error: GatewayError, started: float) -> None:
        self.deaths += 1
        self.last_error = error
        _log.error("model %s: %s", self.spec.name, error.message)
        now = time.monotonic()
        if now - started < self._env.quick_death:
            self._quick_deaths += 1
        else:
            self._quick_deaths = 1
        if self._quick_deaths >= self._env.quick_deaths_allowed:
            self._enter(State.FAILED)
            return
        wait = self._env.backoff_first * 2 ** (self._quick_deaths - 1)
        self.retry_at = now + min(wait, self._env.backoff_cap)
        self._enter(State.BACKOFF)

    def failure(self) -> GatewayError:
        """Why a ``failed`` backend is not started again."""
        cause = self.last_error.message if self.last_error else "it died too often"
        return LoadFailed(
            f"{self.spec.name!r} failed {self._quick_deaths} times in a row and is not started "
            f"again until it is loaded explicitly or its entry in models.json changes. {cause}"
        )

    def _load_failed(self, child: process.Child, what: str) -> LoadFailed:
        status = child.returncode
        if status is not None:
            what = f"{_how_it_ended(status)} while it was loading"
        return LoadFailed(f"the llama-server of {self.spec.name!r} {what}.{self._last_lines()}")

    def _last_lines(self) -> str:
        lines = [line for line in self.log.tail(TAIL) if line]
        return " Its last lines: " + " | ".join(lines) if lines else ""


async def _is_healthy(pool: UpstreamPool) -> bool:
    with contextlib.suppress(GatewayError):
        return (await pool.fetch("GET", "/health", timeout=5.0)).status == 200
    return False


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
