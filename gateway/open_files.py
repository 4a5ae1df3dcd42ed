"""The limit of open files, and so of connections, of this process.

The soft limit is 1024 by custom, for programs that use select(2), which can't count further. The
gateway doesn't use it, but llama-server may, so each child gets the limit that we were started
with.
"""

from __future__ import annotations

import contextlib
import resource
from typing import Final

#: The soft limit with which this process was started.
INHERITED: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
#: The limit for systems whose hard limit is "none", which have one nevertheless (macOS: OPEN_MAX).
_LEAST: Final = 10240


def allow_all() -> int:
    """Raise the soft limit to the hard one; return what it is then (-1: no limit)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, _LEAST):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
