"""Reports on the gateway, the machine that it runs on, and all problems there.

What takes long to find is looked for in a thread, once for all who ask, and kept for a while.
"""

from __future__ import annotations

import asyncio
import os
import platform
import pwd
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from gateway import __version__
from gateway.access.accounting import Accounting
from gateway.backends.command import bundled_program, find_program
from gateway.backends.machine import Machine
from gateway.backends.machine_report import machine_report, nodes_report
from gateway.backends.program_version import program_version
from gateway.backends.scheduler import Scheduler
from gateway.config.settings import Settings
from gateway.errors import LoadFailed
from gateway.http.lifecycle import Lifecycle
from gateway.http.tls_state import TlsState
from gateway.library import Library
from gateway.tasks import spawn

if TYPE_CHECKING:
    from gateway.doctor.problems import Known

#: Seconds for which the problems found are kept, and a failure to find llama-server's version.
_PROBLEMS: Final = 10.0
_DISKS: Final = 10.0
_PROGRAM: Final = 30.0
#: Seconds for llama-server to say its version: somebody waits for the page.
_PATIENCE: Final = 5.0
_DAY: Final = 86_400.0

_T = TypeVar("_T")


class _Kept(Generic[_T]):
    """A value that takes long to find: it is computed once for all concurrent requests, and kept
    for a while.
    """

    def __init__(self, seconds: float, name: str) -> None:
        self._seconds = seconds
        self._name = name
        self._until = 0.0  # by time.monotonic()
        self._task: asyncio.Task[_T] | None = None
        self._of: object = None

    async def get(self, look: Callable[[], _T], of: object = None) -> _T:
        """Return the kept value, if it is of the same ``of``; else what ``look`` finds."""
        task = self._task
        if task is not None and of != self._of:
            await asyncio.wait((task,))
            task = None
        if task is None or (task.done() and not self._is_good(task)):
            self._of = of
            task = self._task = spawn(asyncio.to_thread(look), name=self._name)
            task.add_done_callback(self._found)
        return await asyncio.shield(task)

    def _is_good(self, task: asyncio.Task[_T]) -> bool:
        failed = task.cancelled() or task.exception() is not None
        return not failed and time.monotonic() < self._until

    def _found(self, _task: asyncio.Task[_T]) -> None:
        self._until = time.monotonic() + self._seconds


class SystemReport:
    """A maker of the answer of ``GET /admin/system``. ``source``: the file of the settings."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        scheduler: Scheduler,
        lifecycle: Lifecycle,
        accounting: Accounting,
        tls: TlsState,
        *,
        source: Path | None,
    ) -> None:
        self._settings = settings
        self._library = library
        self._scheduler = scheduler
        self._lifecycle = lifecycle
        self._accounting = accounting
        self._tls = tls
        self._source = source
        self._problems: _Kept[list[dict[str, Any]]] = _Kept(_PROBLEMS, "look for problems")
        self._disks: _Kept[list[dict[str, Any]]] = _Kept(_DISKS, "look at the disks")
        self._program: _Kept[dict[str, Any]] = _Kept(_PROGRAM, "ask llama-server for its version")
        self._user = _user()

    async def make(self) -> dict[str, Any]:
        """Return the report, for JSON."""
        library, lifecycle = self._library, self._lifecycle
        await library.refresh()
        machine = await machine_report(self._scheduler)
        # One after the other: each takes a thread, and others wait for those as well.
        program = await self._program.get(self._look_at_program)
        disks = await self._disks.get(self._look_at_disks)
        problems = await self._problems.get(
            self._look_for_problems(self._known()), of=(library.catalog, library.broken)
        )
        models_file = str(library.file)
        broken = library.broken or ""
        lines = [
            one["line"]
            for one in problems
            if one["file"] == models_file and one["line"] and one["message"] in broken
        ]
        uptime = self._accounting.seconds
        return {
            "version": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "processors": os.cpu_count(),
            "time": _shown(time.time()),
            "started": _shown(time.time() - uptime),
            "uptime": round(uptime, 1),
            "ready": lifecycle.ready,
            "pid": os.getpid(),
            "user": self._user,
            "paths": {
                "config": str(self._source.absolute()) if self._source is not None else None,
                "models_file": models_file,
                "llm_storage": str(self._settings.llm_storage),
                "data_dir": str(self._settings.data_dir),
            },
            "urls": list(lifecycle.urls),
            "redirect_urls": list(lifecycle.redirect_urls),
            "llama_server": program,
            "machine": machine,
            "nodes": nodes_report(self._scheduler.environment.nodes),
            "disks": disks,
            "certificate": self._certificate(),
            "models_file": {
                "error": library.broken,
                "line": min(lines, default=None),
                "note": library.note,
                "demonstration": library.shipped,
            },
            "problems": problems,
        }

    # --- the certificate ---------------------------------------------------------------------

    def _certificate(self) -> dict[str, Any] | None:
        """Return what is known of the certificate; ``None`` with plain HTTP."""
        tls, state = self._settings.tls, self._tls
        if not tls.enabled:
            return None
        info = state.certificate
        acme = state.acme.status if state.acme is not None else None
        refused = state.reloader.problems if state.reloader is not None else ()
        error = "\n".join(map(str, refused)) or (acme.last_error if acme is not None else None)
        if tls.acme is not None:
            source = "acme"
        else:
            source = "home-made" if info is not None and info.local else "own"
        told: dict[str, Any] = {
            "source": source,
            "issuer": None,
            "names": list(tls.acme.domains) if tls.acme is not None else [],
            "not_before": None,
            "not_after": None,
            "days_left": None,
            "fingerprint": None,
            "trusted_elsewhere": None,
        }
        if info is not None:
            left = (info.not_after - datetime.now(UTC)).total_seconds()
            told |= {
                "issuer": info.issuer,
                "names": list(info.names),
                "not_before": _shown(info.not_before.timestamp()),
                "not_after": _shown(info.not_after.timestamp()),
                "days_left": int(left // _DAY),
                "fingerprint": info.fingerprint,
                "trusted_elsewhere": not info.local,
            }
        return {
            **told,
            "renewal": {
                "authority": tls.acme.directory if tls.acme is not None else None,
                "last_success": _shown(acme.last_success) if acme is not None else None,
                "next_try": _shown(acme.next_try) if acme is not None else None,
                "failures": acme.failures if acme is not None else 0,
                "last_error": error,
            },
        }

    # --- in threads ----------------------------------------------------------------------------

    def _look_at_program(self) -> dict[str, Any]:
        environment = self._scheduler.environment
        told: dict[str, Any] = {"path": None, "bundled": False, "version": None, "problem": None}
        try:
            program = find_program(self._settings.llama_server, environment.environ)
        except LoadFailed as error:
            return {**told, "problem": error.detail or error.message}
        version = program_version(program, environment.for_children, timeout=_PATIENCE)
        bundled = program == bundled_program()
        return {
            "path": None if bundled else program[0],
            "bundled": bundled,
            "version": version.text,
            "problem": version.problem,
        }

    def _look_at_disks(self) -> list[dict[str, Any]]:
        named = ("data_dir", self._settings.data_dir), ("llm_storage", self._settings.llm_storage)
        return [_disk(name, folder.expanduser()) for name, folder in named]

    def _known(self) -> Known:
        """Return what is known already, so that the checks need not look for it."""
        from gateway.doctor.problems import Known

        accounts = self._scheduler.accounts
        machine: Machine | None = None
        if accounts is not None and accounts.capacity is not None:
            machine = accounts.capacity.machine if accounts.capacity.machine.devices else None
        models = [asdict(status) for status in self._scheduler.status()]
        return Known(self._settings, self._library.catalog, machine, models)

    def _look_for_problems(self, known: Known) -> Callable[[], list[dict[str, Any]]]:
        def look() -> list[dict[str, Any]]:
            from gateway.doctor.problems import all_problems  # few ask for it

            return [one._asdict() for one in all_problems(self._source, known)]

        return look


def _disk(name: str, folder: Path) -> dict[str, Any]:
    for place in (folder, *folder.parents):
        try:
            usage = shutil.disk_usage(place)
        except OSError:
            continue
        return {"name": name, "path": str(folder), "total": usage.total, "free": usage.free}
    return {"name": name, "path": str(folder), "total": None, "free": None}


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _shown(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
