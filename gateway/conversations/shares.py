"""Whose opening with tools goes where a model has no place for one more: a share per key. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from gateway.conversations.index import Saved

#: Files of openings with tools that a model has at most, and the seconds for which none of them
#: that was used goes for another one of the same key: else more than that in turn would all be
#: written in vain.
MOST_WITH_TOOLS: Final = 8
_NOT_REPLACED: Final = 3600.0


def goes_for(owner: str, kept: Sequence[Saved], now: float) -> Saved | None:
    """Return which of those ``kept``, the one used last at the end, goes for a new one of
    ``owner``; ``None``: none.

    One that nobody used for long; else the oldest of the key that has most, if that has still no
    fewer than ``owner`` then. So two keys never take from each other in turn.
    """
    if not kept or kept[0].used < now - _NOT_REPLACED:
        return kept[0] if kept else None
    counts = Counter(saved.owner for saved in kept)
    most, count = max(counts.items(), key=lambda item: item[1])
    if count < counts[owner] + 2:
        return None
    return next(saved for saved in kept if saved.owner == most)
