"""Ends requests early: when their time is up, or their key has lost the right.

Whoever waits is told so. The task that serves it is cancelled, as when its client hangs up, and so
its slot is given back at once; what the cancellation means is said by its :class:`Ending`. One
timer looks after all of them once a second: a timer each would cost more than all the rest of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Final, TypeVar

from gateway.errors import GatewayError, TimeIsUp

T = TypeVar("T")

_LOOK: Final = 1.0  # seconds between two looks at whose time is up


#: The allowed seconds, and the setting that says so.
_Allowed = tuple[float | None, str]


class Ending:
    """A handle by which one request may be ended: by a time, or by a call of :meth:`end`."""

    __slots__ = ("_allowed", "_error", "due", "task", "whose")

    def __init__(self, due: float, allowed: _Allowed, whose: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        #: The task that serves the request, until that is done: one that was cancelled keeps its
        #: error, whose traceback leads back here.
        self.task: asyncio.Task[Any] | None = task
        self._allowed = allowed
        self._error: GatewayError | None = None
        self.due = due
        #: The request's context, by which handles are found.
        self.whose = whose

    def end(self, error: GatewayError) -> None:
        """End the request with ``error``, as far as its client can still be told."""
        if self._error is None:
            error.cuts = True
            self._error = error
            if self.task is not None:
                self.task.cancel()

    def end_late(self) -> None:
        """End the request because it takes too long."""
        seconds, named = self._allowed
        allowed = f"{seconds:g} s ({named})"
        self.end(TimeIsUp(f"the answer has taken longer than one may here: {allowed}"))

    def meaning(self, broke: BaseException) -> GatewayError | None:
        """Return what ``broke`` is, if it's an error or this request's end; otherwise None."""
        if isinstance(broke, GatewayError):
            return broke
        if self._error is None or self.task is None or self.task.uncancel() > 0:
            return None  # its client hung up, or the gateway ends
        return self._error


class _Piecewise(Ending):
    """A handle for an answer whose pieces are read by changing tasks."""

    __slots__ = ("clock",)

    def __init__(self, due: float, allowed: _Allowed, whose: object) -> None:
        super().__init__(due, allowed, whose)
        self.clock: asyncio.Timeout | None = None  # of the piece that is waited for

    @property
    def error(self) -> GatewayError | None:
        """The error that ended the answer, if any."""
        return self._error

    def end(self, error: GatewayError) -> None:
        if self._error is None:
            error.cuts = True
            self._error = error
            if self.clock is not None:
                self.clock.reschedule(asyncio.get_running_loop().time())


class Endings:
    """The handles of all requests under way. ``seconds``: ``limits.request.time``."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._without = (seconds, "limits.request.time")  # a time of its key's own
        self._open: dict[Ending, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> list[Ending]:
        """The handles of all requests under way."""
        return list(self._open)

    def begin(self, of_key: float | None, whose: object = None) -> Ending:
        """Watch over the request of this task, whose key may have a time of its own.

        Give the result to :meth:`done`.
        """
        allowed = self._without if of_key is None else self._longest(of_key)
        seconds = allowed[0]
        if seconds is None:
            return self.hold(whose)
        ending = Ending(asyncio.get_running_loop().time() + seconds, allowed, whose)
        self._open[ending] = None
        if self._timer is None:
            self._see_to(seconds)
        return ending

    def hold(self, whose: object) -> Ending:
        """Watch over a request without a limit of time."""
        ending = Ending(math.inf, (None, ""), whose)
        self._open[ending] = None
        return ending

    def done(self, ending: Ending) -> None:
        """Stop watching: the request has ended by itself."""
        self._open.pop(ending, None)
        ending.task = None

    def end_all(self, why: Callable[[], GatewayError]) -> None:
        """End every request under way, each with an error of its own."""
        for ending in self.open:
            ending.end(why())

    @contextlib.contextmanager
    def watching(self, of_key: float | None, whose: object = None) -> Iterator[None]:
        """Watch over a request that is answered in one piece. Raises the error that ended it."""
        ending = self.begin(of_key, whose)
        try:
            yield
        except asyncio.CancelledError as broke:
            if (error := ending.meaning(broke)) is None:
                raise
            raise error from None
        finally:
            self.done(ending)

    async def within(
        self, pieces: AsyncGenerator[T, None], of_key: float | None, whose: object = None
    ) -> AsyncGenerator[T, None]:
        """Yield ``pieces`` until the request is ended; then raise the error."""
        allowed = self._longest(of_key)
        seconds = allowed[0]
        loop = asyncio.get_running_loop()
        due = math.inf if seconds is None else loop.time() + seconds
        ending = _Piecewise(due, allowed, whose)
        self._open[ending] = None
        if seconds is not None:
            self._see_to(seconds)
        try:
            async with contextlib.aclosing(pieces):
                while True:
                    if ending.error is not None:
                        raise ending.error
                    try:
                        async with asyncio.timeout(None) as ending.clock:
                            piece = await anext(pieces)
                    except StopAsyncIteration:
                        return
                    except TimeoutError:
                        if ending.error is None:
                            raise
                        raise ending.error from None
                    finally:
                        ending.clock = None
                    yield piece
        finally:
            self.done(ending)

    def _longest(self, of_key: float | None) -> _Allowed:
        if of_key is not None and (self._seconds is None or of_key < self._seconds):
            return of_key, "max_seconds of the key"
        return self._without

    def _see_to(self, seconds: float) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(_LOOK, seconds), self._end_overdue)

    def _end_overdue(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        soonest = math.inf
        for ending in list(self._open):
            if ending.due <= now:
                del self._open[ending]
                ending.end_late()
            else:
                soonest = min(soonest, ending.due)
        if soonest < math.inf:
            self._timer = loop.call_at(min(soonest, now + _LOOK), self._end_overdue)
