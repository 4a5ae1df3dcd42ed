"""A process that parses what is too large for a thread of ours, one thing after the other.

Both sides of the pipe to it are here. A parser holds CPython's lock for all of a text, and no other
thread runs meanwhile; only another process leaves the event loop alone. It receives bytes and the
name of a function, and runs only functions of this package. It ends with the process that started
it, whose end of the pipe is closed then, however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from gateway.errors import GatewayError, PayloadTooLarge

#: The header of a message in the pipe: the lengths of its small part (pickled) and its large part.
_LENGTHS: Final = struct.Struct(">QQ")
_PIECE: Final = 2**20
#: Bytes of memory that the process may take beyond what the size of its work explains.
_MEMORY: Final = 2**30
#: The factor from a text to the memory of all its forms at once: as it came, as Python keeps it
#: (four bytes a character), and serialised again.
_TIMES: Final = 12

Result = tuple[Any, bytes | None]
#: A function ``work(data, *arguments)`` of a module of ours; it returns a small part and a large
#: part.
Work = Callable[..., Result]


class WorkerDied(Exception):
    """The worker process has ended without an answer."""


class WorkerProcess:
    """A handle of the worker process. All methods block; :meth:`kill` may come from any thread."""

    def __init__(self) -> None:
        import subprocess  # few gateways ever need it

        root = str(Path(__file__).parents[1])
        program = (
            f"import sys; sys.path.insert(0, {root!r})\n"
            "from gateway.worker_process import main; main()"
        )
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl+C is for the parent
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._killed = False
        self._to, self._of = self._child.stdin.fileno(), self._child.stdout.fileno()
        for end in (self._to, self._of):
            _widen(end)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs, and may go on."""
        return not self._killed and self._child.poll() is None

    def ask(self, work: Work, data: bytes, arguments: tuple[Any, ...]) -> Result:
        """Return what ``work`` makes of ``data`` there, or raise what it raises."""
        try:
            _write(self._to, (work, arguments), data)
            said = _read(self._of)
        except OSError as error:
            raise WorkerDied from error
        if said is None:
            raise WorkerDied
        (failed, small), large = said
        if failed is not None:
            raise _made(failed, *small)
        return small, large

    def kill(self) -> None:
        """End it at once."""
        self._killed = True
        self._child.kill()

    def close(self) -> None:
        """End it, and wait until it has."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            pipe.close()


def _made(kind: type[BaseException], said: Any, fields: Any) -> BaseException:
    """Return an exception as it was in the other process.

    No variable of the frame that raises it may hold it: with its traceback that would be a cycle,
    which keeps the whole body until the collector runs.
    """
    # Not by its own __init__, which takes other arguments in some subclasses.
    error = kind.__new__(kind, *said)
    error.__dict__.update(fields)
    return error


def _widen(end: int) -> None:
    """Reduce the number of turns for something large."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, _PIECE)


def _write(end: int, small: Any, large: bytes | None) -> None:
    head = pickle.dumps(small)
    size = -1 if large is None else len(large)
    for part in (_LENGTHS.pack(len(head), size + 1) + head, large or b""):
        left = memoryview(part)
        while left:
            left = left[os.write(end, left[:_PIECE]) :]


def _read(end: int) -> tuple[Any, bytes | None] | None:
    """Return what the other side wrote, or ``None`` if it is gone."""
    if (lengths := _exactly(end, _LENGTHS.size)) is None:
        return None
    small, large = _LENGTHS.unpack(lengths)
    if (head := _exactly(end, small)) is None:
        return None
    body = _exactly(end, large - 1) if large else None
    if large and body is None:
        return None
    return pickle.loads(head), body  # noqa: S301  # of our own process


def _exactly(end: int, size: int) -> bytes | None:
    pieces: list[bytes] = []
    while size:
        if not (piece := os.read(end, min(size, _PIECE))):
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)  # which lets other threads run, where it is long


# --- in the process itself -------------------------------------------------------------------


def main() -> None:
    """Answer until nobody asks any more."""
    import gc
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # there are no cycles in JSON, and many objects
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # killed before processes with models
    come, go = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # what anybody prints is no answer
    with contextlib.suppress(BrokenPipeError):
        while (asked := _read(come)) is not None:
            (work, arguments), data = asked
            _write(go, *_answer(work, data or b"", arguments))


def _answer(work: Work, data: bytes, arguments: tuple[Any, ...]) -> tuple[Any, bytes | None]:
    try:
        _bound(_MEMORY + _TIMES * len(data))
        small, large = work(data, *arguments)
    except GatewayError as raised:
        return _failure(raised)
    except MemoryError:
        return _failure(PayloadTooLarge("the body takes too much memory to be looked through"))
    except Exception as raised:
        return _failure(RuntimeError(f"{type(raised).__name__}: {raised}"[:1000]))
    finally:
        _bound(None)
    return (None, small), large


def _failure(error: BaseException) -> tuple[Any, None]:
    """Return what is reported of an error, without the error: its traceback holds the whole
    body.
    """
    return (type(error), (error.args, error.__dict__)), None


def _bound(size: int | None) -> None:
    """Let the process have ``size`` bytes of memory, or what it could have at its start."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if size is None or (hard != resource.RLIM_INFINITY and size > hard):
        size = hard
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))
