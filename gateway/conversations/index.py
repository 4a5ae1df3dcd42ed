"""What is saved, found by the beginning of a request, and what has to go first. Pure."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.conversations.chain import Chain
from gateway.conversations.counts import Held, SavedOpening
from gateway.conversations.opening import OPENING_LINKS

_DAY: Final = 86_400.0
#: Seconds in which what a saved conversation is worth halves.
_HALF_LIFE: Final = 2 * _DAY
#: A clock that shows less (2026-01-01) is wrong: this was written later.
_EARLIEST: Final = 1_767_225_600.0
#: Seconds that a clock is set back as a matter of course.
_TOLERATED: Final = 3_600.0


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

    @property
    def is_opening(self) -> bool:
        """Whether it is only what conversations have in common."""
        return len(self.chain.links) <= self.chain.shared

    def worth(self, now: float) -> float:
        """Return the seconds that it saves for each byte; less the longer it has been unused."""
        age = max(0.0, now - self.used)  # a clock may have been set back
        return float(self.seconds * 0.5 ** (age / _HALF_LIFE) / max(1, self.size))


class FoundPrefix(NamedTuple):
    """A conversation whose first ``links`` are those of a request."""

    saved: Saved
    links: int

    def reach(self, chain: Chain) -> int:
        """Return how many links of ``chain``, the request's, its file has: of a conversation that
        goes on where it ends, the answer is there, too.
        """
        goes_on = self.links == len(self.saved.chain.links) and not self.saved.is_opening
        return min(self.links + goes_on, len(chain.links))


#: Who has a link: nearly always one, so that no collection is made for it.
_Those = Saved | dict[Saved, None]


class Index:
    """Everything that is saved, of all models."""

    def __init__(self) -> None:
        self._all: dict[str, Saved] = {}
        self._by_link: dict[str, dict[bytes, _Those]] = defaultdict(dict)
        self._by_end: dict[str, dict[bytes, _Those]] = defaultdict(dict)
        #: Bytes of all of it.
        self.size = 0
        #: What is here of each model, and of each owner.
        self.of_models: dict[str, Held] = {}
        self.of_owners: dict[str, Held] = {}
        self._litter: list[Saved] = []

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
        self._count(saved, 1)
        links = self._by_link[saved.fingerprint]
        own = _own_links(saved)
        for link in own:
            _add(links, link, saved)
        if own:
            _add(self._by_end[saved.fingerprint], own[-1], saved)

    def remove(self, saved: Saved) -> None:
        """Forget ``saved``; harmless if that has been done. What it takes here is left to
        :meth:`tidy`.
        """
        if self._all.pop(saved.name, None) is not None:
            self._count(saved, -1)
            self._litter.append(saved)

    def _count(self, saved: Saved, sign: int) -> None:
        self.size += sign * saved.size
        for named, name in ((self.of_models, saved.model), (self.of_owners, saved.owner)):
            held = named.setdefault(name, Held())
            held.conversations += sign
            held.size += sign * saved.size
            if not held.conversations:
                del named[name]

    def tidy(self, most: int = 50) -> bool:
        """Clear away what is left of so many that were removed; return whether there are more.

        All at once would stop the event loop: ten thousand take a quarter of a second.
        """
        for saved in self._litter[-most:]:
            links = self._by_link[saved.fingerprint]
            own = _own_links(saved)
            for link in own:
                _remove(links, link, saved)
            if own:
                _remove(self._by_end[saved.fingerprint], own[-1], saved)
            if not links:
                del self._by_link[saved.fingerprint], self._by_end[saved.fingerprint]
        del self._litter[-most:]
        return bool(self._litter)

    def longest(self, fingerprint: str, chain: Chain) -> FoundPrefix | None:
        """Return what has the longest beginning in common with ``chain``; of several, the last."""
        links = self._by_link.get(fingerprint)
        if links:
            for count in range(len(chain.links), 0, -1):
                if (those := links.get(chain.links[count - 1])) is not None:
                    for one in (those,) if isinstance(those, Saved) else reversed(those):
                        if one.name in self._all:
                            return FoundPrefix(one, count)
        return None

    def is_continued(self, fingerprint: str, chain: Chain) -> bool:
        """Return whether anything here goes on with all of ``chain``, which has links."""
        links = self._by_link.get(fingerprint)
        those = links.get(chain.links[-1], ()) if links else ()
        several = (those,) if isinstance(those, Saved) else those
        return any(len(one.chain.links) > len(chain.links) and self.has(one) for one in several)

    def ends_with(self, link: bytes) -> bool:
        """Return whether anything ends with ``link``, of whatever process."""
        for ends in self._by_end.values():
            those = ends.get(link, ())
            if any(map(self.has, (those,) if isinstance(those, Saved) else those)):
                return True
        return False

    def openings(self, fingerprint: str | None = None) -> list[Saved]:
        """Return the openings with tools, of a process or of all, the one used last at the end."""
        found = [
            saved
            for saved in self._all.values()
            if saved.is_opening
            and saved.chain.shared == OPENING_LINKS
            and fingerprint in (None, saved.fingerprint)
        ]
        return sorted(found, key=lambda saved: saved.used)

    def contained(self, newer: Saved) -> list[Saved]:
        """Return what is superfluous since ``newer``, which continues it, is saved."""
        ends = self._by_end.get(newer.fingerprint, {})
        found: dict[Saved, None] = {}
        for link in _own_links(newer):
            those = ends.get(link, ())
            found.update(dict.fromkeys((those,) if isinstance(those, Saved) else those))
        return [one for one in found if one is not newer and self.has(one)]


def shown_openings(all_of_it: Iterable[Saved]) -> list[SavedOpening]:
    """Return what conversations have in common, the one used last at the beginning."""
    found = [
        SavedOpening(
            saved.model,
            saved.owner,
            "tools" if saved.chain.shared == OPENING_LINKS else "personality",
            saved.size,
            saved.tokens,
            round(saved.used, 3),
        )
        for saved in all_of_it
        if saved.is_opening
    ]
    return sorted(found, key=lambda opening: -opening.used)


async def tidy_up(index: Index) -> None:
    """Clear away all that was removed, a little at a time."""
    more = True
    while more:
        await asyncio.sleep(0)
        more = index.tidy()


async def in_steps(
    act: Callable[[Sequence[Saved]], None], several: Sequence[Saved], most: int
) -> None:
    """Have ``act`` done to ``several``, to so many at a time."""
    for start in range(0, len(several), most):
        await asyncio.sleep(0)
        act(several[start : start + most])


class FoundFolder(NamedTuple):
    """What was in a folder: ``last`` is what was used last of each fingerprint, ``written`` the
    bytes of what was saved in the last day.
    """

    everything: Index
    last: list[Saved]
    written: int


def sorted_out(found: list[Saved], now: float) -> FoundFolder:
    """Return what was ``found``, with its times mended."""
    mend_times(found, now)
    index, last, written = Index(), dict[str, Saved](), 0
    for saved in sorted(found, key=lambda saved: saved.used):
        index.add(saved)
        last[saved.fingerprint] = saved
        if saved.created > now - _DAY:
            written += saved.size
    return FoundFolder(index, [*last.values()], written)


def _own_links(saved: Saved) -> tuple[bytes, ...]:
    """Return the links by which ``saved`` is found.

    Whatever a key has asked is not found by what all keys share: else another one would learn by
    timing what of it is its own as well. What conversations have in common is found by all of it
    only: there are models that can't go back to a part of it.
    """
    chain = saved.chain
    return chain.links[-1:] if saved.is_opening else chain.links[chain.shared :]


def _add(links: dict[bytes, _Those], link: bytes, saved: Saved) -> None:
    those = links.setdefault(link, saved)
    if isinstance(those, dict):
        those[saved] = None
    elif those is not saved:
        links[link] = {those: None, saved: None}


def _remove(links: dict[bytes, _Those], link: bytes, saved: Saved) -> None:
    those = links.get(link)
    if isinstance(those, dict):
        those.pop(saved, None)
        if len(those) == 1:
            (links[link],) = those
    elif those is saved:
        del links[link]


def too_old(all_of_it: Iterable[Saved], now: float, max_age: float) -> list[Saved]:
    """Return what nobody has used for ``max_age`` seconds; nothing if the clock can't be right."""
    if now < _EARLIEST:
        return []
    return [saved for saved in all_of_it if now - saved.used > max_age]


def least_valuable(all_of_it: Iterable[Saved], now: float, excess: int) -> list[Saved]:
    """Return what goes first, until ``excess`` bytes are gone."""
    going: list[Saved] = []
    if excess > 0:
        for saved in sorted(all_of_it, key=lambda one: one.worth(now)):
            going.append(saved)
            excess -= saved.size
            if excess <= 0:
                break
    return going


def mend_times(all_of_it: Iterable[Saved], now: float) -> list[Saved]:
    """Return those that were used by a clock that was wrong: from now on they count as used now.

    A machine without a battery begins in 1970 until it is told the time: what it saved then is not
    as old as that, and what it had saved before is not from the future.
    """
    if now < _EARLIEST:
        return []
    wrong = [saved for saved in all_of_it if not _EARLIEST <= saved.used <= now + _TOLERATED]
    for saved in wrong:
        saved.used = now
    return wrong
