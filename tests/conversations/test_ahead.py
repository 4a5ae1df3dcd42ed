"""Whose a beginning with tools is, from one conversation to the next."""

from __future__ import annotations

from pathlib import Path

from gateway.conversations.ahead import Ahead
from gateway.conversations.chain import Chain
from gateway.conversations.opening import OPENING_LINKS
from gateway.conversations.shared import SHARED
from gateway.conversations.shelf import Shelf
from gateway.conversations.slots import ConversationSlots
from tests.conversations.test_opening import OF_CLIENT, chat, wish
from tests.conversations.test_shelf import put, shelf_in
from tests.conversations.test_slot_files import stopped


class Asking:
    """Keys that begin conversations with the same tools."""

    def __init__(self, folder: Path, shelf: Shelf) -> None:
        self._slots = ConversationSlots(stopped(folder), "f", shelf)
        self._shelf = shelf
        self._folder = folder / "cache"
        self._ahead = Ahead(shelf)

    def asks(self, owner: str, *questions: str) -> bool:
        """Whether the last one finds what it begins with."""
        for question in questions:
            made = wish(chat(question=question), OF_CLIENT, owner=owner)
            assert made.opening is not None
            made = made._replace(chain=self._ahead.chain(made.chain, made.opening))
            found = self._shelf.longest("f", made.chain)
            self._ahead.note(self._slots, made, owner)
        return found is not None

    async def computed(self, owner: str) -> None:
        """What is computed ahead for ``owner`` is saved."""
        made = wish(chat(), OF_CLIENT, owner="k" if owner == SHARED else owner)
        assert made.opening is not None
        begun: Chain = made.chain.first(OPENING_LINKS)
        if owner == SHARED:
            begun = begun.with_link(OPENING_LINKS - 1, made.opening.link)
        await put(self._shelf, self._folder, owner, 9, owner=owner, chain=begun, fingerprint="f")


async def test_nobody_waits_since_others_have_the_same_tools(tmp_path: Path) -> None:
    async with shelf_in(tmp_path / "cache") as shelf:
        asking = Asking(tmp_path, shelf)
        assert not asking.asks("guesser", "a", "b")
        await asking.computed("guesser")
        assert asking.asks("guesser", "c")
        assert not asking.asks("other", "d", "e")
        assert asking.asks("guesser", "f"), "the common one isn't there yet"
        assert not asking.asks("third", "g")
        await asking.computed(SHARED)
        for owner in ("guesser", "other", "third"):
            assert asking.asks(owner, "h")
