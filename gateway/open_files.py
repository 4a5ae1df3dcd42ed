"""How many files, and so connections, this process may have open at once.

The soft limit is 1024 by custom, for programs that use select(2), which can't count further. The
gateway doesn't use it, but llama-server may, so each child gets the limit that we were started
with.
"""

from __future__ import annotations

import contextlib
import resource
from typing import Final

#: The soft limit this process was started with.
INHERITED: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
#: Where the hard limit is "none", systems have one nevertheless (macOS: OPEN_MAX).
_LEAST: Final = 10240


def allow_all() -> int:
    """Raise the soft limit to the hard one; return what it is then (-1: no limit)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, _LEAST):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
