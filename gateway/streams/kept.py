"""The recordings of the last streams, within a bound of memory and of time."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from typing import Final

from gateway.errors import Conflict
from gateway.streams.recording import LastEvent, Recording

#: The bytes of memory that a recording is given at a time.
_PORTION: Final = 16 * 1024
#: The share of all memory for recordings that one of them may take.
_SHARE: Final = 1 / 8


class KeptStreams:
    """The recordings of streams that run, and of those that ended in the last ``keep`` seconds.

    All together take at most ``max_size`` bytes of memory: those that ended first go first, and
    then a stream that runs is recorded no longer.
    """

    def __init__(self, *, keep: float, max_size: int) -> None:
        self.keep = keep
        self._max_size = max_size
        self._given = 0
        self._more = self._give  # one object for all of them
        #: By key and id: what one key calls its streams is nothing to others.
        self._kept: dict[tuple[str, str], Recording] = {}
        self._ended: deque[tuple[float, Recording]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        #: What ends answers that go on without any reader, by their recording.
        self._alone: dict[Recording, asyncio.TimerHandle] = {}

    def begin(self, key_id: str, last_event: LastEvent, id: str | None = None) -> Recording:
        """Return a new recording, of a stream of the key ``key_id``, by the name ``id``.

        Raises :class:`Conflict` if this key has another of that name, unless it failed before it
        began: then this is another try.
        """
        if id is None:
            id = f"stream_{secrets.token_hex(12)}"
        elif (other := self.find(id, key_id)) is not None:
            if other.began or not other.ended:
                raise Conflict(
                    f"this key has a stream {id!r} already: GET /v1/streams/{id} reads it",
                    code="stream_exists",
                    param="X-Stream-Id",
                )
            self.forget(other)
        recording = Recording(id, key_id, last_event, self._more)
        self._kept[key_id, id] = recording
        return recording

    def find(self, id: str, key_id: str) -> Recording | None:
        """Return the recording ``id``, if there is one and it is one of the key ``key_id``."""
        return self._kept.get((key_id, id))

    def end(self, recording: Recording) -> None:
        """Note that the stream of ``recording`` has ended: it is kept for a while."""
        if recording.ended:
            return
        recording.end()
        if (timer := self._alone.pop(recording, None)) is not None:
            timer.cancel()
        if not self._has(recording):
            return
        loop = asyncio.get_running_loop()
        self._ended.append((loop.time() + self.keep, recording))
        if self._timer is None:
            self._timer = loop.call_later(self.keep, self._forget_old)

    def leave_alone(self, recording: Recording, give_up: Callable[[], object]) -> None:
        """Give up the work on ``recording``, whose client has gone, unless somebody reads it
        within :attr:`keep`; and again when that reader has left.
        """
        recording.give_up_work = give_up
        self._alone_from_now(recording)

    def join(self, recording: Recording) -> None:
        """Note that somebody reads ``recording``."""
        recording.readers += 1
        if (timer := self._alone.pop(recording, None)) is not None:
            timer.cancel()

    def leave(self, recording: Recording) -> None:
        """Note that somebody reads it no longer."""
        recording.readers -= 1
        self._alone_from_now(recording)

    def _alone_from_now(self, recording: Recording) -> None:
        if recording.readers or recording.ended or recording.give_up_work is None:
            return
        loop = asyncio.get_running_loop()
        self._alone[recording] = loop.call_later(self.keep, self._give_up, recording)

    def _give_up(self, recording: Recording) -> None:
        self._alone.pop(recording, None)
        if (give_up := recording.give_up_work) is not None:
            give_up()

    def forget(self, recording: Recording) -> None:
        """Keep ``recording`` no longer."""
        if self._has(recording):
            del self._kept[recording.key_id, recording.id]
            self._given -= recording.allowed
            recording.allowed = 0
            recording.give_up()

    def close(self) -> None:
        """Give up the answers that nobody reads, and forget everything."""
        for recording, timer in list(self._alone.items()):
            timer.cancel()
            self._give_up(recording)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ended.clear()
        for recording in list(self._kept.values()):
            self.forget(recording)

    def _has(self, recording: Recording) -> bool:
        return self._kept.get((recording.key_id, recording.id)) is recording

    def _give(self, recording: Recording) -> None:
        """Give ``recording`` more memory, if need be that of the oldest ones."""
        needed = -(-(recording.size - recording.allowed) // _PORTION) * _PORTION
        if recording.allowed + needed > self._max_size * _SHARE:
            self.forget(recording)
            return
        while self._given + needed > self._max_size and self._ended:
            self.forget(self._ended.popleft()[1])
        if self._given + needed > self._max_size or not self._has(recording):
            self.forget(recording)
            return
        self._given += needed
        recording.allowed += needed

    def _forget_old(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._ended and self._ended[0][0] <= now:
            recording = self._ended.popleft()[1]
            if recording.readers:  # it is read to its end first
                self._ended.append((now + self.keep, recording))
                break
            self.forget(recording)
        if self._ended:
            self._timer = loop.call_at(max(self._ended[0][0], now + 1.0), self._forget_old)
