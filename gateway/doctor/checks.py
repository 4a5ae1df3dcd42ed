"""The input and the findings of checks, and how all checks run in bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

from gateway.backends.machine import Machine, read_machine
from gateway.config.settings import Settings
from gateway.models.catalog import Catalog

#: Seconds for all checks together; a check without a result by then is reported as such.
LIMIT: Final = 40.0


class Level(Enum):
    """The severity of a finding. An error keeps something from working."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """A finding: ``what`` is so, and ``do`` (empty: nothing) helps.

    ``name`` is that of the check; ``subject`` is the model, port or folder that it is about.
    """

    name: str
    level: Level
    what: str
    do: str = ""
    subject: str = ""


class Running(NamedTuple):
    """The gateway that runs on the data folder: its process, and its answers to /admin/status,
    /admin/cache and /admin/nodes (``None``: it has none).
    """

    pid: int | None
    status: Mapping[str, Any]
    cache: Mapping[str, Any] | None = None
    nodes: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Subject:
    """The subject of all checks. ``program`` starts the llama-server; ``no_program``: why there is
    none.

    ``silent``: why the gateway that seems to run did not answer.
    """

    settings: Settings
    catalog: Catalog
    environ: Mapping[str, str]
    program: tuple[str, ...] = ()
    no_program: str | None = None
    running: Running | None = None
    silent: str | None = None
    _seen: list[Machine] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def machine(self) -> Machine:
        """Return the machine's devices. They are looked at once, when first asked for."""
        with self._lock:
            if not self._seen:
                self._seen.append(read_machine(self.program, self.environ))
            return self._seen[0]


class Check(NamedTuple):
    """A check with its name."""

    name: str
    run: Callable[[Subject], Iterable[Finding]]


class _Run:
    """One check in a daemon thread, so that one that hangs delays nobody's end."""

    def __init__(self, check: Check, subject: Subject) -> None:
        self.check = check
        self.done = threading.Event()
        self.findings: list[Finding] = []
        self._subject = subject
        threading.Thread(target=self._work, name=f"check {check.name}", daemon=True).start()

    def _work(self) -> None:
        try:
            self.findings = list(self.check.run(self._subject))
        except Exception as error:
            # Its text may hold anything, so it isn't shown.
            what = f"could not be looked at ({type(error).__name__})"
            self.findings = [Finding(self.check.name, Level.WARNING, what)]
        finally:
            self.done.set()


def examine(
    checks: Sequence[Check], subject: Subject, *, limit: float = LIMIT
) -> Iterator[list[Finding]]:
    """Return what each check finds, in their order. All run at once, for ``limit`` seconds
    at most.
    """
    end = time.monotonic() + limit
    runs = [_Run(check, subject) for check in checks]
    for run in runs:
        if run.done.wait(max(end - time.monotonic(), 0.0)):
            yield run.findings
        else:
            yield [
                Finding(
                    run.check.name,
                    Level.WARNING,
                    f"no answer within {limit:g} s",
                    "something that it asks hangs: a driver, a network drive, a name server",
                )
            ]


def size(number: int) -> str:
    """Return ``number`` bytes as people write them."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
