"""The version of a llama-server, by its ``--version``. Blocks."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from gateway.backends.ask_program import ask_program
from gateway.backends.command import bundled_program, inherited

#: Seconds: as long as a GPU's driver may take to start.
PATIENCE: Final = 15.0
_VERSION: Final = re.compile(r"version: *(.{1,80})")


class Version(NamedTuple):
    """A version. ``text``: like ``6123 (abc1234)``; else ``problem`` says, after its name, why it
    is unknown.

    ``starts``: whether it could be started at all.
    """

    text: str | None
    problem: str | None = None
    starts: bool = True


class _VersionUnknown(Exception):
    """A version that could not be had. It is not remembered, as it may be had the next time."""

    def __init__(self, problem: str, *, starts: bool = False) -> None:
        super().__init__(problem)
        self.starts = starts


def program_version(
    program: Sequence[str], environ: Mapping[str, str], *, timeout: float = PATIENCE
) -> Version:
    """Return that of ``program``. Once it has said, it is asked again when its file has changed."""
    if tuple(program) == bundled_program():
        return Version(f"xllamacpp {metadata.version('xllamacpp')}")
    environment = tuple(sorted(inherited(environ).items()))
    try:
        status = Path(program[0]).stat()
        known = status.st_mtime_ns, status.st_size
        return Version(_asked(tuple(program), known, environment, timeout))
    except OSError as error:
        return Version(None, f"cannot be started: {error.strerror}", starts=False)
    except _VersionUnknown as error:
        return Version(None, str(error), starts=error.starts)


@lru_cache(maxsize=4)
def _asked(
    program: tuple[str, ...],
    _known: tuple[int, int],
    environment: tuple[tuple[str, str], ...],
    timeout: float,
) -> str:
    try:
        code, output = ask_program(
            program, "--version", dict(environment), timeout=timeout, errors=True
        )
    except subprocess.TimeoutExpired:
        raise _VersionUnknown(f"did not answer to --version within {timeout:g} s") from None
    text = output.decode("utf-8", "replace")
    found = _VERSION.search(text)
    if code == 0 and found is not None:
        return found[1].strip()
    last = " ".join(text.split())[-160:]
    problem = f"--version ended with status {code}{': ' if last else ''}{last}"
    raise _VersionUnknown(problem, starts=code == 0)
