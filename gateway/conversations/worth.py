"""Whether a conversation is worth writing once more. Pure.

llama-server writes all of a conversation or nothing: of one with 50,000 tokens gigabytes, for a
turn that added 200 of them. What is saved already of it stays of use, so only what was added is at
stake; and flash memory wears out. So the more of it is new, the sooner it is written.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.conversations.chain import Chain
from gateway.conversations.index import FoundPrefix, Saved

#: While nothing threatens it, so much of it has to be new: then all that is ever written of a
#: conversation is at most four times what it is in the end.
_NEW_PART: Final = 0.25
#: Bytes that may be written in a day, as a part of the size of the disk: a third of what makers of
#: flash disks for homes warrant (600 TB in five years for one of 1 TB).
_DAILY_PART: Final = 0.1
_DAY: Final = 86_400.0
#: Bytes that are written in a second, until that was seen.
_SPEED: Final = 5e8


class Writing(NamedTuple):
    """What writing a conversation would do.

    ``new``: its part that isn't saved yet, from 0 to 1; ``computing``: seconds that this takes to
    compute again, ``writing``: those that all of it takes to write. ``in_danger``: it is about to
    be lost from its slot.
    """

    new: float
    computing: float
    writing: float
    in_danger: bool


def is_worth_it(writing: Writing, left: float) -> bool:
    """Return whether to do so, with the part ``left`` of what may be written in a day.

    When less than half of that is left, more and more of it has to be new.
    """
    needed = max(0.0, 1.0 - 2.0 * left)
    if not writing.in_danger:
        needed = max(needed, _NEW_PART)
    return writing.new >= needed and writing.computing > writing.writing


class DailyBytes:
    """How much may still be written today: that fills up again all the time.

    ``now``: seconds of a clock that is never set.
    """

    def __init__(self, now: float) -> None:
        self._written = 0.0
        self._at = now

    def note(self, size: int) -> None:
        """So many bytes have been written."""
        self._written += size

    def left(self, disk: int, now: float) -> float:
        """Return the part that is left on a disk of so many bytes, from 0 to 1."""
        most = disk * _DAILY_PART
        refilled = most * (now - self._at) / _DAY
        self._at = now
        self._written = min(most, max(0.0, self._written - refilled))
        return 1.0 - self._written / most if most > 0 else 0.0


class Writes:
    """What was written, and what more would cost. ``now`` as for :class:`DailyBytes`."""

    def __init__(self, now: float) -> None:
        self._daily = DailyBytes(now)
        self._speed = _SPEED
        self._sizes: dict[str, float] = {}  # bytes of a token, by fingerprint

    def know(self, saved: Saved) -> None:
        """Learn how large a token of such a process is."""
        self._sizes[saved.fingerprint] = saved.size / max(1, saved.tokens)

    def note(self, size: int, seconds: float = 0.0) -> None:
        """So many bytes were written, in ``seconds`` if that is known."""
        self._daily.note(size)
        if seconds > 0 and size > 0:
            self._speed = 0.7 * self._speed + 0.3 * size / seconds

    def size(self, fingerprint: str, tokens: int) -> int:
        """Return the bytes of so many tokens; 0 if nothing is known of such a process."""
        return int(self._sizes.get(fingerprint, 0.0) * tokens)

    def are_worth_it(
        self,
        fingerprint: str,
        tokens: int,
        new: int,
        seconds: float,
        *,
        in_danger: bool,
        disk: int,
        now: float,
    ) -> bool:
        """Return whether so many tokens are to be written, of which ``new`` are not saved yet and
        take ``seconds`` to compute again; on a disk of so many bytes.
        """
        writing = Writing(
            new / max(1, tokens), seconds, self.size(fingerprint, tokens) / self._speed, in_danger
        )
        return is_worth_it(writing, self._daily.left(disk, now))


def new_tokens(chain: Chain, tokens: int, found: FoundPrefix | None) -> int:
    """Return how many of the ``tokens`` of ``chain`` are not in what was ``found`` saved of it."""
    if found is None:
        return tokens
    if found.links == len(found.saved.chain.links):
        return max(0, tokens - found.saved.tokens)
    return tokens - int(tokens * chain.size(found.links) / max(1, chain.size()))
