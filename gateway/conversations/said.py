"""What a request said, as bytes: the next one of its conversation is known by them. Pure.

Each request of a conversation repeats the one before and says more: its bytes begin as those did,
up to the end of the messages, and end as those did, behind them. That is seen by two comparisons of
memory. The messages are hashed only when their chain is looked at: to be saved, or because
something else is to have their slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import orjson

from gateway.conversations.chain import BEFORE, MESSAGES, Chain, Chains, before_messages

_NONE: Final[Mapping[str, Any]] = {}
#: Brackets that are looked at for the one behind the messages, from the end on.
_BRACKETS: Final = 16


class Recognised:
    """By what a request is known to go on with a conversation of the key ``owner``, all that is
    told of that before its messages aside, which its bytes begin with.

    ``before``: what else of it makes its prompt; ``names``: those of its ``fields``, so many;
    ``end``: what stands behind its messages, from ``cut`` on. ``chain``: that of its first
    ``counted`` messages, which are ``size`` bytes of it.
    """

    __slots__ = (
        "before",
        "chain",
        "counted",
        "cut",
        "end",
        "fields",
        "format",
        "names",
        "none_longer",
        "owner",
        "size",
    )

    def __init__(
        self,
        owner: str,
        format: str,
        before: Mapping[str, Any],
        names: Sequence[str],
        end: bytes,
        chain: Chain,
        counted: int,
        size: int,
    ) -> None:
        self.owner, self.format = owner, format
        self.before, self.names, self.fields = before, names, len(names)
        self.end, self.cut = end, -len(end)
        self.chain, self.counted, self.size = chain, counted, size
        #: The number of changes to what is saved after which nothing was that goes on with it.
        self.none_longer = -1

    def with_chain(self, chain: Chain, counted: int, size: int) -> Recognised:
        """Return the same with a longer chain."""
        made = Recognised(
            self.owner, self.format, self.before, self.names, self.end, chain, counted, size
        )
        made.none_longer = self.none_longer
        return made

    def with_end(self, sent: bytes, body: Mapping[str, Any]) -> Recognised | None:
        """Return the same as ``sent`` has it, with other fields in its ``body``; ``None`` if those
        make another prompt.
        """
        if _before(body, self.format) != self.before:
            return None
        end = end_of(sent, body, MESSAGES[self.format])
        if end is None:
            return None
        made = self.with_chain(self.chain, self.counted, self.size)
        made.names, made.fields = [*body], len(body)
        made.end, made.cut = end, -len(end)
        return made

    def text_in(self, sent: bytes, body: Mapping[str, Any], owner: str, format: str) -> bytes:
        """Return all of what ``owner`` has ``sent`` up to the end of its messages, if it has the
        same behind them as this conversation; else nothing.
        """
        same = self.owner == owner and self.format == format and sent.endswith(self.end)
        return sent[: -len(self.end)] if same and [*body] == self.names else b""

    def first(self, messages: int, size: int) -> Recognised:
        """Return the same of only so many ``messages``, which are ``size`` bytes."""
        if messages >= self.counted:
            return self
        chain = self.chain.first(len(self.chain.links) - self.counted + messages)
        return self.with_chain(chain, messages, size)


class MakesChains(Protocol):
    """What makes the chains of requests."""

    @property
    def chains(self) -> Chains: ...


class Said:
    """What a request of the key ``owner`` said: ``sent`` to llama-server, in that ``format``.

    ``recognised``: by what the next one of its conversation is known, if it is. ``text``: all up
    to the end of its messages, once its answer is complete.

    It has no constructor, since that would cost more than all else here: who makes one sets
    ``within``, ``owner``, ``sent`` and ``format``, and has it :meth:`know` its chain or
    :meth:`follow` another.
    """

    __slots__ = ("_chain", "format", "owner", "recognised", "sent", "text", "within")

    within: MakesChains
    owner: str
    sent: bytes
    format: str
    text: bytes
    recognised: Recognised
    _chain: Chain | None

    @property
    def base(self) -> Chain:
        """Its chain, as far as that has been made: the beginning of it."""
        if (chain := self._chain) is not None:
            return chain
        return self.recognised.chain

    @property
    def more(self) -> int:
        """Bytes that it says beyond :attr:`base`."""
        if self._chain is not None:
            return 0
        return len(self.sent or self.text) - self.recognised.size

    @property
    def chain(self) -> Chain:
        """Its chain."""
        if (chain := self._chain) is not None:
            return chain
        known = self.recognised
        sent = self.sent or self.text + known.end
        messages = orjson.loads(sent)[MESSAGES[self.format]]
        chain = self._chain = self.within.chains.longer(known.chain, messages[known.counted :])
        self.recognised = known.with_chain(chain, len(messages), len(sent) - len(known.end))
        return chain

    def know(self, chain: Chain) -> None:
        """Have this chain."""
        self._chain = chain

    def follow(self, recognised: Recognised) -> None:
        """It goes on with what is ``recognised``."""
        self.recognised = recognised
        self._chain = None

    def remember(self, body: Mapping[str, Any]) -> bool:
        """Have what goes on with it recognised, whose chain is known and which was parsed to
        ``body``; return whether that is possible.
        """
        field = MESSAGES.get(self.format)
        messages = None if field is None else body.get(field)
        chain = self._chain
        if messages.__class__ is not list or not messages or chain is None or not chain.links:
            return False
        assert field is not None
        assert messages is not None
        end = end_of(self.sent, body, field)
        if end is None:
            return False
        text = self.text = self.sent[: -len(end)]
        self.recognised = Recognised(
            self.owner,
            self.format,
            _before(body, self.format),
            [*body],
            end,
            chain,
            len(messages),
            len(text),
        )
        self.sent = b""
        return True


def end_of(sent: bytes, body: Mapping[str, Any], field: str) -> bytes | None:
    """Return what stands behind the elements of the list ``field`` in ``sent``, which was parsed to
    ``body``, and in which no key stands twice; ``None`` if that isn't found easily.

    It begins with the bracket that closes the list. No other bracket has just the fields behind it
    that stand behind this one, and then the end.
    """
    names = [*body]
    behind = names[names.index(field) + 1 :]
    if not behind:
        ends: tuple[bytes, ...] = (b"]}",)
    else:
        try:
            written = orjson.dumps({name: body[name] for name in behind})
        except TypeError:  # an integer over 64 bits
            return None
        ends = (b"]," + written[1:],)
    if sent.endswith(ends):
        return ends[0]
    start = len(sent)
    for _ in range(_BRACKETS):
        start = sent.rfind(b"]", 0, start)
        if start < 0:
            break
        rest = sent[start + 1 :].strip()
        if not behind:
            if rest == b"}":
                return sent[start:]
        elif rest.startswith(b","):
            try:
                if [*orjson.loads(b"{" + rest[1:])] == behind:
                    return sent[start:]
            except ValueError:
                continue
    return None


def _before(body: Mapping[str, Any], format: str) -> Mapping[str, Any]:
    return _NONE if BEFORE.isdisjoint(body) else before_messages(body, format)
