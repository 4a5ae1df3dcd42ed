"""What is saved, found by the beginning of a request, and what has to go first. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.conversations.chain import Chain

#: Seconds in which what a saved conversation is worth halves.
_HALF_LIFE: Final = 2 * 86_400.0


@dataclass(slots=True, eq=False)
class Saved:
    """One conversation on disk.

    ``tokens`` are in the file, ``promised`` of them at least are read back for whoever continues
    all of it (``None``: that is not known); ``seconds``: what they took to compute; ``check``: of
    the file's content. Times in seconds since 1970, ``size`` in bytes.
    """

    name: str
    model: str
    fingerprint: str
    owner: str
    chain: Chain
    tokens: int
    promised: int | None
    seconds: float
    created: float
    used: float
    size: int = 0
    check: int = 0

    def worth(self, now: float) -> float:
        """Return the seconds that it saves for each byte; less the longer it has been unused."""
        age = max(0.0, now - self.used)  # a clock may have been set back
        return float(self.seconds * 0.5 ** (age / _HALF_LIFE) / max(1, self.size))


class FoundPrefix(NamedTuple):
    """A conversation whose first ``links`` are those of a request."""

    saved: Saved
    links: int


class Index:
    """Everything that is saved, of all models."""

    def __init__(self) -> None:
        self._all: dict[str, Saved] = {}
        self._by_link: dict[str, dict[bytes, list[Saved]]] = defaultdict(dict)
        #: Bytes of all of it.
        self.size = 0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Saved]:
        return iter(tuple(self._all.values()))

    def has(self, saved: Saved) -> bool:
        """Return whether ``saved`` is here."""
        return saved.name in self._all

    def add(self, saved: Saved) -> None:
        """Let ``saved`` be found."""
        self._all[saved.name] = saved
        self.size += saved.size
        links = self._by_link[saved.fingerprint]
        for link in saved.chain.links:
            links.setdefault(link, []).append(saved)

    def remove(self, saved: Saved) -> None:
        """Forget ``saved``; harmless if that has been done."""
        if self._all.pop(saved.name, None) is None:
            return
        self.size -= saved.size
        links = self._by_link[saved.fingerprint]
        for link in saved.chain.links:
            among = links[link]
            among.remove(saved)
            if not among:
                del links[link]

    def longest(self, fingerprint: str, chain: Chain) -> FoundPrefix | None:
        """Return what has the longest beginning in common with ``chain``; of several, the last."""
        links = self._by_link.get(fingerprint)
        if links:
            for count in range(len(chain.links), 0, -1):
                if found := links.get(chain.links[count - 1]):
                    return FoundPrefix(found[-1], count)
        return None

    def contained(self, newer: Saved) -> list[Saved]:
        """Return what is superfluous since ``newer``, which continues it, is saved."""
        links = self._by_link[newer.fingerprint]
        ends = (one for link in newer.chain.links for one in links.get(link, ()))
        own = set(newer.chain.links)
        found = {one.name: one for one in ends if one.chain.links[-1] in own and one is not newer}
        return [*found.values()]

    def outdated(self, now: float, *, budget: int, max_age: float) -> list[Saved]:
        """Return what has to go: what is too old, then the least valuable, until all fits."""
        going = [saved for saved in self._all.values() if now - saved.used > max_age]
        size = self.size - sum(saved.size for saved in going)
        if size > budget:
            kept = sorted(set(self._all.values()) - set(going), key=lambda one: one.worth(now))
            for saved in kept:
                if size <= budget:
                    break
                going.append(saved)
                size -= saved.size
        return going
