"""The flags that a llama-server knows, from its own ``--help``. Blocks.

Builds differ, and end themselves at a flag that they don't know. Asked once for each program, and
again when its file has changed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from gateway.backends.ask_program import ask_program
from gateway.backends.command import bundled_program, inherited

#: Seconds: long enough for a driver that wakes up slowly, and not endless for a wrapper that never
#: answers.
_TIMEOUT = 15.0
_FLAG = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")


def flags_known(program: Sequence[str], environ: Mapping[str, str]) -> frozenset[str]:
    """Return every flag that ``program`` names in its help; none where it gives no answer."""
    if tuple(program) == bundled_program():
        from gateway.backends import bundled  # as a rule there is another one

        return frozenset(name for flag in bundled.FLAGS for name in (*flag.names, *flag.off))
    try:
        status = Path(program[0]).stat()
    except (OSError, IndexError):
        return frozenset()
    # Where its libraries are, and the like: a driver that is hidden changes no flag.
    environment = tuple(sorted(inherited(environ).items()))
    return _ask(tuple(program), status.st_mtime_ns, status.st_size, environment)


@lru_cache(maxsize=4)
def _ask(
    program: tuple[str, ...], _modified: int, _size: int, environment: tuple[tuple[str, str], ...]
) -> frozenset[str]:
    try:
        _, output = ask_program(program, "--help", dict(environment), timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    return frozenset(_FLAG.findall(output.decode("utf-8", "replace")))
