"""What a request said, as it was parsed: the next one of its conversation is known by it. Pure.

Each request of a conversation repeats the one before and says more. That is seen by comparing the
two, which takes a few microseconds for a hundred messages; they are hashed only when their chain is
looked at: to be saved, or because something else is to have their slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.conversations.chain import (
    BEFORE,
    MESSAGES,
    Chain,
    Chains,
    before_messages,
)

_NOTHING: Final[Mapping[str, Any]] = {}


class Said:
    """What a request of the key ``owner`` said.

    ``messages``: all of them, if its conversation can be known by them, else ``None``; ``before``:
    what else makes its prompt.
    """

    __slots__ = (
        "_chain",
        "_chains",
        "_counted",
        "before",
        "format",
        "messages",
        "none_longer",
        "owner",
        "size",
    )

    messages: list[Any] | None
    _chain: Chain
    _counted: int

    def __init__(self, chains: Chains, owner: str) -> None:
        self._chains = chains
        self.owner = owner
        self.messages = None

    def read(self, body: Mapping[str, Any], format: str, size: int) -> None:
        """Take what it says from ``body``, of ``size`` bytes, which names no slot and has no
        prompt.
        """
        self.format, self.size = format, size
        self.before = _NOTHING if BEFORE.isdisjoint(body) else before_messages(body, format)
        messages = body.get(MESSAGES.get(format, ""))
        self.messages = messages if messages.__class__ is list and messages else None

    @property
    def base(self) -> Chain:
        """Its chain, as far as that has been made: the beginning of it."""
        return self._chain

    @property
    def chain(self) -> Chain:
        """Its chain."""
        if self.messages is not None and self._counted < len(self.messages):
            self._chain = self._chains.longer(self._chain, self.messages[self._counted :])
            self._counted = len(self.messages)
        return self._chain

    def know(self, chain: Chain) -> None:
        """Have this chain."""
        self._chain = chain
        self._counted = len(self.messages) if self.messages is not None else 0
        self.none_longer = -1

    def follow(self, earlier: Said) -> None:
        """It begins with all that ``earlier`` said."""
        self._chain, self._counted = earlier._chain, earlier._counted
        self.none_longer = earlier.none_longer
