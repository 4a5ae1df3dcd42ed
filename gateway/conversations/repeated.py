"""Which openings of conversations come again and again, and for whom. Pure.

An opening with tools is worth being computed ahead for a key once it has begun two conversations
with it: most of those that a key has only once never come back (tools with the date in them, or of
a server that was tried), nearly all that come twice do, and whoever waits for more computes it in
vain meanwhile.

It is computed for all keys once two of them have done so. Until then it is one key's own, and what
another one waits for doesn't depend on it: who guesses what tools somebody has, and sends them,
gets only what was computed for himself. Who holds two keys can find out whether a third one has
exactly the tools that he knows already, byte for byte; not what is in others.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from gateway.bounded_cache import BoundedCache

#: Conversations of a key with the same opening, and keys with that many, from which on it counts.
CONVERSATIONS: Final = 2
KEYS: Final = 2
#: Openings of a model that are remembered, and keys of each.
_OPENINGS: Final = 256
_KEYS_OF_ONE: Final = 64


class Standing(enum.Enum):
    """Of an opening: whose it is, as far as it is to be computed ahead at all."""

    SELDOM = enum.auto()
    OWN = enum.auto()
    COMMON = enum.auto()


class Repeated:
    """Those of one model."""

    def __init__(self) -> None:
        self._seen: dict[bytes, dict[str, set[bytes]]] = {}
        self._common: BoundedCache[bytes, bool] = BoundedCache(_OPENINGS)

    def is_common(self, link: bytes) -> bool:
        """Return whether the opening ``link`` is every key's."""
        return link in self._common

    def share(self, link: bytes) -> None:
        """Let the opening ``link`` be every key's."""
        self._seen.pop(link, None)
        self._common[link] = True

    def saw(self, link: bytes, owner: str, first: bytes, *, common: bool) -> Standing:
        """Count a conversation of ``owner`` with the opening ``link``, whose first question is
        ``first``. ``common``: it may become every key's.
        """
        if common and link in self._common:
            return Standing.COMMON
        owners = self._seen.pop(link, None)
        if owners is None:
            owners = {}
            if len(self._seen) >= _OPENINGS:
                del self._seen[next(iter(self._seen))]
        self._seen[link] = owners  # the last of them is the one that was seen last
        firsts = owners.setdefault(owner, set())
        if len(firsts) >= CONVERSATIONS:
            return Standing.OWN
        firsts.add(first)
        if len(firsts) < CONVERSATIONS:
            if len(owners) > _KEYS_OF_ONE:
                del owners[next(iter(owners))]
            return Standing.SELDOM
        if common and sum(len(one) >= CONVERSATIONS for one in owners.values()) >= KEYS:
            self.share(link)
            return Standing.COMMON
        return Standing.OWN

    def forget(self, goes: Callable[[str], bool]) -> None:
        """Forget what was seen of keys that ``goes`` is true of; what is every key's stays so."""
        for owners in self._seen.values():
            for owner in [owner for owner in owners if goes(owner)]:
                del owners[owner]
