"""Parses large texts outside the event loop.

Up to :data:`SMALL` bytes are parsed at once: that takes less than handing them over. Larger texts
go to one of two threads. Those that would hold CPython's lock there for longer than a few
milliseconds in one go (a parser releases it when it is done) go to a process. There is one, started
when it is first needed, and ended when it has had nothing to do for a minute. Further work waits:
:mod:`gateway.api.room` limits how much.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from gateway.errors import Unavailable
from gateway.worker_process import Result, Work, WorkerDied, WorkerProcess

#: Bytes. A text up to this size costs at most a few milliseconds, whatever it holds: see
#: `is_small`.
SMALL: Final = 256 * 1024
#: Bytes up to which a text is small, whatever it holds.
_TINY: Final = 64 * 1024
#: Values in JSON that take a parser a few milliseconds.
_FEW: Final = 20_000
#: The most bytes, and values of JSON, that a thread gets.
_THREADS_BYTES: Final = 4 * 2**20
_THREADS_VALUES: Final = 40_000
_THREADS: Final = 2
#: Seconds that the process may take for one job, and seconds after which it ends when idle.
PATIENCE: Final = 30.0
IDLE: Final = 60.0
_log = logging.getLogger(__name__)


def is_small(data: bytes) -> bool:
    """Return whether parsing ``data``, JSON, takes a few milliseconds at most."""
    size = len(data)
    return size <= _TINY or (size <= SMALL and _marks(data) <= _FEW)


def _marks(data: bytes) -> int:
    """Return a number no smaller than that of the values in ``data``."""
    # What is in a list or object has one of these before it.
    return data.count(b",") + data.count(b"[") + data.count(b"{")


class Workers:
    """Two threads and a process, made when they are first needed."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        #: The only thread that talks to the process.
        self._speaker: ThreadPoolExecutor | None = None
        self._process: WorkerProcess | None = None
        self._idle: asyncio.TimerHandle | None = None
        #: The data of the process's current job, and the lock for ending that job or starting the
        #: next.
        self._at: list[bytes] | None = None
        self._turn = threading.Lock()

    async def run(self, work: Work, data: bytes, *arguments: Any) -> Result:
        """Return what ``work(data, *arguments)`` returns, or raise what it raises.

        ``work`` is a function at the top of a module. Raises :class:`Unavailable` if it takes too
        long.
        """
        if is_small(data):
            return work(data, *arguments)
        loop = asyncio.get_running_loop()
        if len(data) <= _THREADS_BYTES:
            done = await loop.run_in_executor(
                self._own_threads(), _in_thread, work, data, arguments
            )
            if done is not None:
                return done
        return await self._in_process(work, data, arguments)

    async def joined(self, pieces: list[bytes]) -> bytes:
        """Return ``pieces`` as one, and empty the list: while it is copied, all of it
        exists twice.
        """
        # CPython's lock is let go of meanwhile, where there is much (its own join.h).
        loop = asyncio.get_running_loop()
        whole = await loop.run_in_executor(self._own_threads(), b"".join, pieces)
        pieces.clear()
        return whole

    def _own_threads(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "look through bodies")
        return self._threads

    async def _in_process(self, work: Work, data: bytes, arguments: tuple[Any, ...]) -> Result:
        loop = asyncio.get_running_loop()
        if self._speaker is None:
            self._speaker = ThreadPoolExecutor(1, "speak to the worker")
        begun = loop.create_future()
        asked = [data]  # which a place in the line must not keep when nobody waits for it
        ask = partial(self._ask, loop, begun, work, asked, arguments)
        asking = loop.run_in_executor(self._speaker, ask)
        # Not asyncio.wait for both: from Python 3.14 on, what is cancelled in it is a cycle, too.
        asking.add_done_callback(lambda _: _set(begun))
        try:
            await begun
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(asking)
        except TimeoutError:
            if (process := self._process) is not None:
                process.kill()
            await asyncio.wait((asking,))
            if asking.exception() is None:
                return asking.result()
            raise Unavailable(
                f"the body could not be looked through in {PATIENCE:g} s", code="body_too_slow"
            ) from None
        except asyncio.CancelledError:
            asking.cancel()
            asked.clear()  # if it still waits for its turn
            with self._turn:
                if self._at is asked and self._process is not None:
                    self._process.kill()
            raise
        except WorkerDied:
            _log.warning("the process that looks through large bodies has ended")
            raise Unavailable(
                "what looks through large bodies has ended; it begins anew", code="worker_died"
            ) from None
        finally:
            asking.add_done_callback(_looked_at)
            self._rest(loop)
            # An error that comes out of it has this frame in its traceback: that is a cycle, which
            # would keep the body until the collector comes by.
            del asking, ask, asked, data

    def _ask(
        self,
        loop: asyncio.AbstractEventLoop,
        begun: asyncio.Future[None],
        work: Work,
        asked: list[bytes],
        arguments: tuple[Any, ...],
    ) -> Result:
        """Ask the process, in the speaker's thread."""
        with self._turn:
            if not asked:  # it was given up in this very moment
                raise WorkerDied
            data = asked[0]
            self._at = asked
        loop.call_soon_threadsafe(_set, begun)
        try:
            process = self._process
            if process is None or not process.alive:
                self._end()
                process = self._process = WorkerProcess()
            if not asked:
                raise WorkerDied
            return process.ask(work, data, arguments)
        except WorkerDied:
            self._end()
            raise
        finally:
            with self._turn:
                self._at = None

    def _rest(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the process when it has had nothing to do for long."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = loop.call_later(IDLE, self._idled)

    def _idled(self) -> None:
        if self._speaker is not None:
            self._speaker.submit(self._end)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()

    @property
    def pid(self) -> int | None:
        """The id of the process, while there is one."""
        return self._process.pid if self._process is not None else None

    async def close(self) -> None:
        """End all of it; whoever still waits is told that it can't be done."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if (process := self._process) is not None:
            process.kill()
        for name in ("_threads", "_speaker"):
            pool: ThreadPoolExecutor | None = getattr(self, name)
            setattr(self, name, None)
            if pool is not None:
                await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        await asyncio.to_thread(self._end)


def with_data(data: bytes, work: Callable[..., Any], at: int, *others: Any) -> Result:
    """Call ``work`` with the data as its argument number ``at``; what it returns is small."""
    return work(*others[:at], data, *others[at:]), None


def _in_thread(work: Work, data: bytes, arguments: tuple[Any, ...]) -> Result | None:
    return work(data, *arguments) if _marks(data) <= _THREADS_VALUES else None


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _looked_at(future: asyncio.Future[Any]) -> None:
    """Mark an error as seen that came when nobody waited any more."""
    if not future.cancelled():
        future.exception()


#: The workers of this process. They are global because many modules need them, and processors are
#: limited.
WORKERS: Final = Workers()
