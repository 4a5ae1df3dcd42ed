"""What conversations begin with, of all models: noted when they end, to be computed ahead.

It is remembered over the loads of a model, so that it is computed again where what was saved of it
fits no more, as with another model file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import product
from typing import Final, Protocol

from gateway.conversations.chain import Chain, Wish, links_of_prefixes
from gateway.conversations.index import Saved
from gateway.conversations.opening import OPENING_LINKS, Opening, Written, link_of_text
from gateway.conversations.prewarming import Prewarming, Wanted
from gateway.conversations.repeated import Repeated, Standing
from gateway.conversations.shared import EFFORTS, SHARED, TemplateArguments
from gateway.conversations.shares import MOST_WITH_TOOLS
from gateway.conversations.slot import Slot

_EFFORTS: Final = (None, *sorted(EFFORTS))
#: All that the template may be told besides a personality's text, but for what an operator wrote.
_ARGUMENTS: Final = [
    TemplateArguments(thinking, effort)
    for thinking, effort in product((None, True, False), _EFFORTS)
]


class WarmedSlots(Protocol):
    """What is needed of :class:`gateway.conversations.slots.ConversationSlots`."""

    model: str
    prewarming: Prewarming
    all: list[Slot]

    def look_later(self, slot: Slot, /) -> None: ...


class Openings(Protocol):
    """What is needed of :class:`gateway.conversations.shelves.Shelves`."""

    def openings(self) -> list[Saved]: ...
    def has(self, link: bytes) -> bool: ...
    def forget(self, *, goes: Callable[[Saved], bool]) -> int: ...


class Ahead:
    """That of one gateway."""

    def __init__(self, saved: Openings) -> None:
        self._saved = saved
        self._repeated = Repeated()
        #: Of each model: openings with tools that came again and again, the last at the end.
        self._known: dict[str, dict[bytes, Wanted]] = defaultdict(dict)

    def open(self) -> None:
        """Take up what is saved, and was every key's before."""
        for saved in self._saved.openings():
            if saved.owner == SHARED:
                self._repeated.share(saved.chain.links[-1])

    def chain(self, chain: Chain, opening: Opening) -> Chain:
        """Return ``chain`` as its key may have it: with an ``opening`` that is every key's.

        Until that is saved, a key goes on with what was computed for it alone: else it would wait,
        and know by that that another one has the same tools.
        """
        common = opening.common and self._repeated.is_common(opening.link)
        if not common or not self._saved.has(opening.link):
            return chain
        return chain.with_link(OPENING_LINKS - 1, opening.link)

    def note(self, slots: WarmedSlots, wish: Wish, owner: str) -> None:
        """A request of ``owner`` has ended, whose conversation began as its ``wish`` tells."""
        if wish.prefix is not None:
            slots.prewarming.want(Wanted(wish.chain.first(1), wish.prefix))
        elif wish.opening is not None:
            wanted = self._wanted(wish.chain, owner, wish.opening)
            if wanted is None:
                return
            known, link = self._known[slots.model], wanted.chain.links[-1]
            known.pop(link, None)
            known[link] = wanted
            if len(known) > MOST_WITH_TOOLS:  # the oldest of the key that has most
                most = Counter(each.owner for each in known.values()).most_common(1)[0][0]
                del known[next(link for link, each in known.items() if each.owner == most)]
            slots.prewarming.want(wanted)

    def _wanted(self, chain: Chain, owner: str, opening: Opening) -> Wanted | None:
        begun = chain.first(OPENING_LINKS)
        if opening.written:
            return Wanted(begun, opening.prefix)
        question = chain.links[min(opening.first, len(chain.links) - 1)]
        standing = self._repeated.saw(opening.link, owner, question, common=opening.common)
        if standing is Standing.SELDOM:
            return None
        if standing is Standing.OWN:
            return Wanted(begun, opening.prefix, owner)
        return Wanted(begun.with_link(OPENING_LINKS - 1, opening.link), opening.prefix)

    def arrived(self, slots: WarmedSlots, wishes: Iterable[Wish]) -> None:
        """A process of a model is there: have computed what its conversations will begin with,
        that is ``wishes``, of all keys, and what is known of earlier ones.
        """
        for wish in wishes:
            if wish.prefix is not None:
                slots.prewarming.want(Wanted(wish.chain.first(1), wish.prefix))
            elif wish.opening is not None and wish.opening.written:
                slots.prewarming.want(Wanted(wish.chain.first(OPENING_LINKS), wish.opening.prefix))
        for wanted in self._known[slots.model].values():
            slots.prewarming.want(wanted)
        if slots.prewarming.waits:
            slots.look_later(slots.all[0])

    def forget(self, goes: Callable[[str], bool], model: str | None = None) -> None:
        """Forget what keys that ``goes`` is true of have begun conversations with; with ``model``:
        only what is known of that one.
        """
        if model is None:
            self._repeated.forget(goes)
        for name, known in self._known.items():
            if model in (None, name):
                for link in [link for link, wanted in known.items() if goes(wanted.owner)]:
                    del known[link]

    def keep_texts(self, texts: Mapping[str, Collection[Written]]) -> int:
        """Forget what every key shares, and begins with another text than one of those that
        ``texts`` has of its model, or was told something else; return how many files that were.
        """
        links: dict[str, frozenset[bytes]] = {}

        def goes(saved: Saved) -> bool:
            if saved.owner != SHARED or (of_model := texts.get(saved.model)) is None:
                return False
            if saved.model not in links:
                links[saved.model] = _first_links(of_model)
            return saved.chain.links[0] not in links[saved.model]

        for model, of_model in texts.items():
            known = self._known.get(model, {})
            kept = {"", *(written.text for written in of_model)}
            for link, wanted in [*known.items()]:
                if wanted.owner == SHARED and wanted.prefix.text not in kept:
                    del known[link]
        return self._saved.forget(goes=goes)


def _first_links(texts: Collection[Written]) -> frozenset[bytes]:
    """Return the first links of chains that begin with one of ``texts``, or with tools alone."""
    links = {link_of_text("")}
    for text, _, told in texts:
        if text is None:
            continue
        links |= {link_of_text(text), *links_of_prefixes(text, _ARGUMENTS)}
        if told is not None:
            own = [TemplateArguments(effort=effort, written=told) for effort in _EFFORTS]
            links.update(links_of_prefixes(text, own))
    return frozenset(links)
