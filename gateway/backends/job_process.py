"""Runs a job in a process of ours: a module's ``main``, with the job on stdin and JSON on
stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from gateway.backends.process import launcher
from gateway.tasks import spawn

#: Seconds between SIGTERM and SIGKILL.
_GRACE: Final = 3.0
#: The most bytes of a line: one line holds the paths of all parts of a split model.
_LINE: Final = 2**20


@asynccontextmanager
async def job_process(
    module: str, environ: Mapping[str, str], job: bytes
) -> AsyncGenerator[Process, None]:
    """Run ``main`` of ``module``; it has got ``job`` on its stdin, and ends with the block.

    Raises ``OSError`` where no process can be started.
    """
    root = str(Path(__file__).parents[2])
    program = f"import sys; sys.path.insert(0, {root!r})\nfrom {module} import main; main()"
    process = await asyncio.create_subprocess_exec(
        *(*launcher(), sys.executable, "-P", "-c", program),
        stdin=PIPE,
        stdout=PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # what is worth saying, it says itself
        env=dict(environ),
        start_new_session=True,  # Ctrl+C is for the parent
        limit=_LINE,
    )
    assert process.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(job)
            await process.stdin.drain()
            process.stdin.close()
        yield process
    finally:
        await _stop(process)


async def _stop(process: Process) -> None:
    """End it, if it hasn't ended. Cancelled, too, it is waited for."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    waiting = spawn(process.wait(), name=f"wait for {process.pid}")
    await asyncio.wait([waiting], timeout=_GRACE)
    if not waiting.done():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait([waiting])
