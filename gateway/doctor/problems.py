"""Lists everything that is wrong on this machine, for a running gateway. Blocks.

It has what ``llm-gateway check`` finds, and those checks of ``doctor`` that start no program and
need no network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.backends.command import find_program
from gateway.backends.machine import Machine
from gateway.config.load import Loaded, load_partly
from gateway.config.settings import Settings
from gateway.doctor import files, machine
from gateway.doctor.checks import Check, Finding, Level, Running, Subject, examine
from gateway.doctor.configuration import find_problems
from gateway.errors import LoadFailed
from gateway.models.catalog import Catalog
from gateway.models.editing import members
from gateway.problems import InvalidFiles, Problem

#: The checks of doctor that a running gateway makes; they read files and /proc.
_CHECKS: Final = (
    Check("devices", machine.check_devices),
    Check("disk", machine.check_disks),
    Check("clock", machine.check_clock),
    Check("permissions", files.check_permissions),
    Check("model", files.check_models),
)
#: The checks that need the devices.
_OF_DEVICES: Final = ("devices", "model")
#: Seconds for all checks: a network drive may hang.
_LIMIT: Final = 5.0
_LINE: Final = re.compile(r"is not (?:valid \w+|text in UTF-8), line (\d+)")


class Known(NamedTuple):
    """The state of the running gateway. ``models``: as in ``/admin/status``."""

    settings: Settings
    catalog: Catalog
    machine: Machine | None
    models: Sequence[Mapping[str, Any]]


class Listed(NamedTuple):
    """One problem. ``source``: the command that finds it too, `check` or `doctor`;
    ``line``: in the file.
    """

    level: str
    source: str
    file: str | None
    line: int | None
    key: str | None
    value: str | None
    message: str
    do: str | None


def all_problems(source: Path | None, known: Known) -> list[Listed]:
    """Return all problems, errors first. ``source``: the configuration, which is read again."""
    loaded, problems = _loaded(source, known)
    found = find_problems(loaded, problems, machine=known.machine, look=False)
    texts = _Texts()
    listed = [_of_check(problem, texts) for problem in found.problems]
    listed += [
        Listed("warning", "check", None, None, None, None, warning, None)
        for warning in found.warnings
    ]
    told = {one.message for one in listed}
    told |= {f"{one.key}: {one.message}" for one in listed}
    for finding in _findings(loaded.settings, known):
        if finding.level is not Level.OK and not told.intersection(_ways_to_say(finding)):
            listed.append(_of_doctor(finding))
    return sorted(listed, key=lambda one: one.level != Level.ERROR.value)


def _loaded(source: Path | None, known: Known) -> tuple[Loaded, list[Problem]]:
    if source is None:
        return Loaded(known.settings, known.settings.data_dir.parent, None), []
    return load_partly(source)


def _of_check(problem: Problem, texts: _Texts) -> Listed:
    return Listed(
        Level.ERROR.value,
        "check",
        problem.file or None,
        texts.line_of(problem),
        problem.key or None,
        problem.value,
        problem.message,
        f"allowed: {problem.allowed}" if problem.allowed else None,
    )


# --- doctor ----------------------------------------------------------------------------------


def _findings(settings: Settings, known: Known) -> Iterator[Finding]:
    program: tuple[str, ...] = ()
    missing = None
    try:
        program = find_program(settings.llama_server, os.environ)
    except LoadFailed as error:
        missing = error.detail or error.message
    running = Running(os.getpid(), {"models": known.models})
    subject = Subject(settings, known.catalog, dict(os.environ), program, missing, running)
    if known.machine is not None:
        subject = replace(subject, _seen=[known.machine])
    checks = [
        check for check in _CHECKS if known.machine is not None or check.name not in _OF_DEVICES
    ]
    if not known.catalog.models:  # `check` says why
        checks = [check for check in checks if check.name != "model"]
    for findings in examine(checks, subject, limit=_LIMIT):
        yield from findings


def _of_doctor(finding: Finding) -> Listed:
    key = f"{finding.name} {finding.subject}".strip()
    return Listed(
        *(finding.level.value, "doctor", None, None, key, None),
        f"{key}: {finding.what}",
        finding.do or None,
    )


def _ways_to_say(finding: Finding) -> Iterator[str]:
    """Yield the words in which `check` reports the same finding."""
    yield finding.what
    yield f"{finding.subject}.{finding.what}"
    file, can, _ = finding.what.partition(" can be read or changed by others")
    if can:
        yield f"{file} can be read by every user of this machine: chmod 600 it"


# --- lines -----------------------------------------------------------------------------------


class _Texts:
    """Finds the lines that problems of models.json are in. Reads each file once."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def line_of(self, problem: Problem) -> int | None:
        """Return the line of a problem, counted from 1; ``None`` if it can't be told."""
        if (found := _LINE.match(problem.message)) is not None:
            return int(found[1])
        if not problem.key or not problem.file.endswith(".json"):
            return None
        text = self._text(problem.file)
        try:
            entries = members(text)
        except InvalidFiles:
            return None
        for entry in entries:
            for name in (entry.name, repr(entry.name)):
                if problem.key == name:
                    return _line(text, entry.start)
                if problem.key.startswith(f"{name}."):
                    last = problem.key.rpartition(".")[2].partition("[")[0]
                    key = re.compile(rf'"{re.escape(last)}"\s*:')
                    found = key.search(text, entry.value, entry.end)
                    return _line(text, found.start() if found else entry.start)
        return None

    def _text(self, file: str) -> str:
        if file not in self._texts:
            try:
                self._texts[file] = Path(file).read_text("utf-8-sig")
            except (OSError, UnicodeDecodeError):
                self._texts[file] = ""
        return self._texts[file]


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
