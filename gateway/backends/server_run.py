"""One run of a llama-server of our own: from its command line to the last trace of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from gateway.backends import process
from gateway.backends.backend import OUT_OF_MEMORY, Environment
from gateway.backends.command import Command, build_command, find_program, model_files
from gateway.backends.deaths import how_it_ended, why_it_ended
from gateway.backends.fallback import gpu_required, says_cpu_only
from gateway.backends.fingerprint import fingerprint, with_build
from gateway.backends.health import Health
from gateway.backends.logring import LogRing
from gateway.backends.oom import gpu_ran_out, looks_like_oom
from gateway.backends.options import gpu_layers
from gateway.backends.progress import LoadProgress
from gateway.backends.run import End
from gateway.backends.runaway import RUNAWAY, describe
from gateway.backends.suspects import by_request
from gateway.backends.watchdog import Hang
from gateway.errors import BackendError, GatewayError, LoadFailed
from gateway.models.local_model import LocalModel
from gateway.models.paths import resolve_model_path, split_parts
from gateway.tasks import spawn
from gateway.upstream import UnixAddress, UpstreamPool, UpstreamRequest

if TYPE_CHECKING:
    from gateway.backends.tuning import Tuning

_log = logging.getLogger(__name__)
T = TypeVar("T", str, dict[str, Any])

#: How many lines of llama-server's log go into an error message.
TAIL = 8
#: Seconds within which /health must answer, and the least time between two checks.
_HEALTH_TIMEOUT = 5.0
_HEALTH_PAUSE = 0.01
#: Connections for unqueued requests: those that need no slot.
_UNQUEUED = 8

#: llama-server's log line about offloaded layers (src/llama-model.cpp): the output layer counts as
#: one.
_OFFLOADED = re.compile(r"\boffloaded (\d+)/\d+ layers to GPU")


class ServerRun:
    """A run of llama-server for ``spec`` at ``socket``. What it writes goes into ``log``.

    ``degraded``: why it will run on the CPU, where that is known before.
    """

    def __init__(
        self,
        spec: LocalModel,
        environment: Environment,
        socket: Path,
        log: LogRing,
        degraded: str | None,
    ) -> None:
        self._spec = spec
        self._env = environment
        self._socket = socket
        self._log = log
        self._first_line = log.total
        self._recording: asyncio.Task[None] | None = None
        self._command: Command | None = None
        self._tuning: Tuning | None = None
        #: What was chosen for it, with the values that came of that; once it is ready.
        self.tuning: Tuning | None = None
        self.child: process.Child | None = None
        self.pool: UpstreamPool | None = None
        self.degraded = degraded
        #: The fingerprint that saved slots must have to fit it; None if slots can't be saved.
        self.fingerprint: str | None = None
        #: The bytes of the model's file, and its layers on GPUs as far as llama-server tells.
        self.weights = 0
        self.layers: int | None = None
        #: The loaded share of the model, from 0 to 1, while it starts and if that is known.
        self.progress: float | None = None

    # --- the start -----------------------------------------------------------------------------

    async def prepare(
        self,
        tuning: Tuning | None,
        devices: tuple[str, ...],
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Do everything about a start that touches the disk.

        ``tuning``: what was chosen where its entry leaves that open; without, ``variables`` may say
        more.
        """
        spec = self._spec if tuning is None else tuning.apply(self._spec)
        variables = variables if tuning is None else tuning.variables
        self._tuning = tuning
        self._command = await asyncio.to_thread(self._prepare, spec, devices, variables)

    def _prepare(
        self, spec: LocalModel, devices: tuple[str, ...], variables: Mapping[str, str]
    ) -> Command:
        command = build_command(
            spec,
            program=find_program(self._env.llama_server, self._env.environ),
            socket=str(self._socket),
            llm_storage=self._env.llm_storage,
            environ=self._env.for_children,
            devices=devices,
            variables=variables,
            slot_saves=(slot_saves := self._slot_saves(spec)),
            metrics=self._env.metrics,
        )
        model = resolve_model_path(spec.params.model or "", self._env.llm_storage)
        if not model.is_file():
            raise LoadFailed(
                f"the model file of {spec.name!r} does not exist.",
                detail=f"There is no {model}. Check params.model in models.json, and llm_storage "
                "in the configuration",
                code="model_file_not_found",
            )
        self.weights = sum(part.stat().st_size for part in split_parts(model) if part.is_file())
        if slot_saves is not None:
            files = (*split_parts(model), *model_files(spec, self._env.llm_storage).values())
            self.fingerprint = fingerprint(command, files)
        return command

    def _slot_saves(self, spec: LocalModel) -> Path | None:
        saves = self._env.slot_saves
        writes = not (spec.embeddings or spec.reranking)
        return saves.folder if saves is not None and writes else None

    async def until_ready(self) -> process.Child:
        """Start what was prepared, and return when GET /health answers 200."""
        command = self._command
        assert command is not None
        child = self.child = await process.start(
            command.argv, command.env, log=self._log, name=self._spec.name
        )
        self._recording = spawn(self._record(child), name=f"record {self._spec.name}")
        pool = self.pool = UpstreamPool(
            UnixAddress(str(self._socket)),
            max_connections=self._spec.parallel + _UNQUEUED,
            name=self._spec.name,
        )
        stop_looking = self._log.listen(self._look_for_fallback)
        try:
            await self._until_healthy(child, pool)
        finally:
            stop_looking()
        if self.fingerprint is not None:
            # Its program may be a script that starts another, and be the same after an upgrade.
            self.fingerprint = with_build(self.fingerprint, await self._props("build_info", ""))
        if self._tuning is not None:
            self.tuning = self._tuning.came_out(await self._context(), self.layers)
        return child

    def refuse_the_cpu(self) -> None:
        """Raise :class:`LoadFailed` where only a GPU will do, and it uses none."""
        if self._spec.require_gpu and self.degraded is not None:
            raise gpu_required(self._spec, self.degraded)

    async def _context(self) -> int | None:
        """Return the tokens of context that a request gets, as llama-server says at GET /props."""
        context = (await self._props("default_generation_settings", {})).get("n_ctx")
        return context if isinstance(context, int) and context > 0 else None

    async def _props(self, name: str, default: T) -> T:
        """Return what GET /props says of ``name``; without it everything goes on."""
        assert self.pool is not None
        try:
            fetched = await self.pool.fetch(
                UpstreamRequest("GET", "/props"), timeout=_HEALTH_TIMEOUT
            )
            found = orjson.loads(fetched.body).get(name)
        except (GatewayError, AttributeError, ValueError):
            return default
        return found if isinstance(found, type(default)) else default

    def _look_for_fallback(self) -> None:
        if (found := _OFFLOADED.search(self._log.last)) is not None:
            self.layers = int(found[1])
        if says_cpu_only(self._log.last) and gpu_layers(self._spec) != 0:
            self.degraded = f"its llama-server says: {self._log.last.strip()}"

    async def _record(self, child: process.Child) -> None:
        try:
            await asyncio.to_thread(self._env.records.write, child)
        except OSError as error:
            _log.warning("cannot note the process of %s: %s", self._spec.name, error)

    async def _until_healthy(self, child: process.Child, pool: UpstreamPool) -> None:
        """Return when GET /health answers 200 (it answers 503 while the model loads).

        Asked at once, after every line the child logs, and in between after pauses that grow
        to 0.25 s.
        """
        news = asyncio.Event()
        unlisten = self._log.listen(news.set)
        exited = spawn(child.wait(), name=f"exit of {self._spec.name}")
        exited.add_done_callback(lambda _: news.set())
        patience = self._env.load_timeout
        progress, pause = LoadProgress(child.pid, self._log, patience), 0.02
        health = Health(pool, min(_HEALTH_TIMEOUT, patience))
        try:
            while not exited.done():
                news.clear()
                self.refuse_the_cpu()
                if await health.is_ready():
                    return
                if health.said is not None and health.refuses_for >= self._env.health_refusal:
                    raise self._failed(child, health.said)
                stalled = await progress.stalled()
                self.progress = progress.part_of(self.weights)
                if stalled:
                    what = f"made no progress for {patience:g} s while loading"
                    what += f", and {health.said}" if health.said is not None else ""
                    raise self._failed(child, what)
                await asyncio.sleep(_HEALTH_PAUSE)  # however much it logs
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await news.wait()
                pause = min(pause * 1.5, 0.25)
            raise self._failed(child, "ended while it was loading")
        finally:
            unlisten()
            exited.cancel()
            self.progress = None

    def _failed(self, child: process.Child, what: str) -> LoadFailed:
        status = child.returncode
        if status is not None:
            what = f"{how_it_ended(status)} while it was loading"
        lines = self._log.tail(self._log.total - self._first_line)
        return LoadFailed(
            f"the llama-server of {self._spec.name!r} {what}.",
            detail=self.last_lines(),
            code=OUT_OF_MEMORY if looks_like_oom(status, lines) else None,
        )

    def how_it_ended(self, status: int, hung: Hang | None) -> End:
        """Return how its process ended; ``hung``: what it was killed for, if that was us."""
        ended = f"{hung.what} and was ended" if hung else how_it_ended(status)
        what = f"the llama-server of {self._spec.name!r} {ended}."
        if hung is not None and hung.verdict is not None:
            error = BackendError(what, code=RUNAWAY, detail=describe(hung.verdict))
        else:
            error = BackendError(what, code="backend_died", detail=self.last_lines())
        # One that hung was ended by us, for what it was asked, unless it was stopped from outside.
        if hung is not None:
            guilty = not hung.stopped
        else:
            guilty = by_request(status) and not gpu_ran_out(self.tail())
        return End(error, why_it_ended(status, self.tail(), hung), guilty, counts=not guilty)

    # --- what it wrote -------------------------------------------------------------------------

    def tail(self) -> list[str]:
        """Return the last lines of its log, none of which an earlier run wrote."""
        return self._log.tail(min(TAIL, self._log.total - self._first_line))

    def last_lines(self) -> str:
        """Return them as a part of an error."""
        lines = [line for line in self.tail() if line]
        return "Its last lines: " + " | ".join(lines) if lines else ""

    # --- the end -------------------------------------------------------------------------------

    async def disconnect(self) -> None:
        """Close every connection to it."""
        if self.pool is not None:
            await self.pool.close()
            self.pool = None

    async def end(self) -> None:
        """End what is left of the child, and remove its socket and its record.

        A call that was cancelled can be made again and goes on.
        """
        if (child := self.child) is not None:
            await child.stop(self._env.stop_grace)
            if self._recording is not None:
                await asyncio.wait([self._recording])
        # Without a child too: one whose start was cancelled may have come as far as its socket.
        await asyncio.to_thread(self._remove_traces, child)
        self.child = self._recording = None

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
                _log.warning("cannot clear up after %s: %s", self._spec.name, error)
