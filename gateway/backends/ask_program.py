"""Runs llama-server with an option that only prints something: ``--help``, ``--version``.
Blocks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from gateway.backends.process import launcher


def ask_program(
    program: Sequence[str],
    flag: str,
    environ: Mapping[str, str],
    *,
    timeout: float,
    errors: bool = False,
) -> tuple[int, bytes]:
    """Exit status and standard output of ``program`` with ``flag``, and nothing else.

    ``errors``: with what it writes on standard error.

    Raises ``OSError`` where it can't be started, and ``subprocess.TimeoutExpired`` after
    ``timeout`` seconds; it is gone then, with all that it started.
    """
    child = subprocess.Popen(
        [*launcher(), *program, flag],  # one that hangs ends with the gateway
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if errors else subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        output, _ = child.communicate(timeout=timeout)
    finally:
        if child.returncode is None:  # a wrapper may have children of its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    return child.returncode, output
