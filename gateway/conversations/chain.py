"""What makes a prompt, as a chain of hashes: equal beginnings have equal links. Pure.

Nothing is tokenised. A link stands for everything up to it, so two requests have the same
beginning as far as their links agree. A link that is wrong leads to a slot that fits less well,
never to a wrong answer: llama-server itself compares tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from zlib import crc32

import orjson

from gateway.bounded_cache import BoundedCache
from gateway.conversations.opening import OPENING_LINKS, Opening, Written, opening_of
from gateway.conversations.passing import MARK, unmarked, unstamped
from gateway.conversations.raw_prompt import Piece, pieces_of, prompts_in
from gateway.conversations.shared import SharedPrefix, TemplateArguments, shared_prefix

#: Bytes of a link.
_LINK: Final = 16
#: Links that are remembered, so that messages seen before are not serialised again.
_KEPT: Final = 65_536
#: Where each format has its messages; others have a prompt.
MESSAGES: Final = {"chat": "messages", "anthropic": "messages", "responses": "input"}
#: The format of raw completions; what has no messages otherwise fills a gap.
_COMPLETION: Final = "completion"
#: What else of a body becomes part of the prompt, before the messages: a test asks llama-server
#: itself (b11549). Of tools, older builds also write how they may be called. ``lora`` makes what is
#: computed of the prompt another thing.
_COMMON: Final = ("tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs", "lora")
_BEFORE: Final = {
    "chat": ("reasoning_effort", *_COMMON),
    "anthropic": ("system", *_COMMON),
    "responses": ("instructions", "reasoning", "reasoning_effort", *_COMMON),
}
BEFORE: Final = frozenset(name for names in _BEFORE.values() for name in names)
#: What names a slot, or says that a request has no messages, or goes on with nothing.
UNUSUAL: Final = frozenset({"id_slot", "prompt", "cache_prompt", "lora"})
#: What tells how long an answer may be, in whatever format; negative: as long as it likes.
_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
#: llama-server has a slot's number as 32 bits.
_MOST_SLOTS: Final = 2**31
#: Beginnings of chains that are remembered: by key, format and personality.
_ROOTS: Final = 4096
#: Conversations that are remembered as a whole, and how many messages such a one has: fewer cost
#: no more one by one, more would take too much memory.
_RECENT: Final = 64
_FEW: Final = 12
_MANY: Final = 1000


class Chain(NamedTuple):
    """``links``: one for each message; ``sizes``: the characters up to and with each.

    ``shared``: so many of the first links stand for what conversations have in common, and what is
    saved of that has a file of its own.
    """

    links: tuple[bytes, ...]
    sizes: tuple[int, ...]
    shared: int = 0

    def first(self, count: int) -> Chain:
        """Return the chain of the first ``count`` links."""
        return Chain(self.links[:count], self.sizes[:count], min(self.shared, count))

    def own(self) -> Chain:
        """Return what of it is no other key's: the links behind the first ``shared``."""
        return Chain(self.links[self.shared :], self.sizes[self.shared :])

    def with_link(self, place: int, link: bytes) -> Chain:
        """Return the chain with ``link`` at ``place``."""
        links = self.links
        return self._replace(links=(*links[:place], link, *links[place + 1 :]))

    def common(self, links: tuple[bytes, ...]) -> int:
        """Return how many links these and others have in common, from the beginning."""
        mine, low, high = self.links, 0, min(len(self.links), len(links))
        while low < high:  # a link stands for all before it, so one look tells of many
            middle = (low + high + 1) // 2
            if mine[middle - 1] == links[middle - 1]:
                low = middle
            else:
                high = middle - 1
        return low

    def size(self, count: int | None = None) -> int:
        """Return the characters of the first ``count`` links, or of all."""
        count = len(self.links) if count is None else count
        return self.sizes[count - 1] if count else 0


NO_CHAIN: Final = Chain((), ())
#: That of a request without a personality.
NOTHING_WRITTEN: Final = Written(None)


class Chains:
    """Makes chains, and remembers links of messages by hashes of this process alone."""

    def __init__(self, most: int = _KEPT) -> None:
        self._seen: BoundedCache[int, bytes] = BoundedCache(most)
        self._roots: BoundedCache[tuple[str, str, bytes], bytes] = BoundedCache(_ROOTS)
        self._prefixes: BoundedCache[int, bytes] = BoundedCache(_ROOTS)
        #: Of the last conversations, by root, checksum and length of their messages. Another one
        #: with the same three would be placed less well, no more.
        self._whole: BoundedCache[tuple[bytes, int, int], Chain] = BoundedCache(_RECENT)

    def of(
        self,
        body: Mapping[str, Any],
        format: str,
        owner: str,
        prefix: SharedPrefix | None = None,
        opening: Opening | None = None,
    ) -> Chain:
        """Return the chain of a request of ``owner``, or :data:`NO_CHAIN` where it has none.

        Owners share no links, so that nobody learns by timing what another one asked; but for the
        first, where it is that of ``prefix``, or of an ``opening`` that an operator wrote.
        """
        before = before_messages(body, format)
        try:
            if opening is not None:
                del before["tools"]
                root = _digest(opening.link, _unmarked((owner, format, [*before.items()])))
                start = opening.size + (len(orjson.dumps(before)) if before else 0)
                return _opened(self._of_body(root, start, body, format), opening, owner)
            shared = b"" if prefix is None else self._of_prefix(prefix)
            if before:
                written = _unmarked((owner, format, [*before.items()]))
                root, size = _digest(shared, written), len(written)
            else:
                root, size = self._root(shared, owner, format), 0
            chain = self._of_body(root, size, body, format)
        except (TypeError, AttributeError):  # an integer over 64 bits, or no message
            return NO_CHAIN
        if prefix is None or not chain.links:
            return chain
        return Chain((shared, *chain.links), (len(prefix.text), *chain.sizes), shared=1)

    def longer(self, chain: Chain, messages: list[Any]) -> Chain:
        """Return ``chain``, of the beginning of a conversation, with these ``messages`` behind it,
        or :data:`NO_CHAIN` where they have none.
        """
        if not chain.links:
            return NO_CHAIN
        try:
            longer = self._follow(chain, chain.links[-1], chain.sizes[-1], messages)
        except (TypeError, AttributeError):  # an integer over 64 bits, or no message
            return NO_CHAIN
        return Chain(longer.links, longer.sizes, chain.shared)

    def of_prefix(self, prefix: SharedPrefix) -> Chain:
        """Return the chain of what every key may share."""
        return Chain((self._of_prefix(prefix),), (len(prefix.text),), shared=1)

    def _of_prefix(self, prefix: SharedPrefix) -> bytes:
        key = hash(prefix)
        link = self._prefixes.get(key)
        if link is None:
            link = self._prefixes[key] = links_of_prefixes(prefix.text, [prefix.arguments])[0]
        return link

    def _root(self, shared: bytes, owner: str, format: str) -> bytes:
        key = (owner, format, shared)
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = _digest(shared, orjson.dumps((owner, format, [])))
        return root

    def _of_body(self, root: bytes, start: int, body: Mapping[str, Any], format: str) -> Chain:
        field = MESSAGES.get(format)
        if field is None:
            return _of_pieces(root, pieces_of(body, fills_gap=format != _COMPLETION))
        messages = body.get(field)
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if not isinstance(messages, list):
            return NO_CHAIN
        return self._of_messages(root, start, messages)

    def _of_messages(self, root: bytes, total: int, messages: list[Any]) -> Chain:
        if not _FEW <= len(messages) <= _MANY:
            return self._follow(Chain((), ()), root, total, messages)
        # Mostly all but the last two, an answer and what is said to it, were there a moment ago; or
        # all, where the same is asked again.
        before = orjson.dumps(messages[:-2], option=orjson.OPT_SORT_KEYS)
        last = orjson.dumps(messages[-2:], option=orjson.OPT_SORT_KEYS)
        check = crc32(memoryview(before)[1:-1])
        whole = root, crc32(memoryview(last)[1:-1], crc32(b",", check)), len(before) + len(last) - 1
        chain = self._whole.get(whole)
        if chain is not None and len(chain.links) == len(messages):
            return chain
        chain = self._whole.get((root, check, len(before)))
        if chain is not None and len(chain.links) == len(messages) - 2:
            chain = self._follow(chain, chain.links[-1], chain.sizes[-1], messages[-2:])
        else:
            chain = self._follow(Chain((), ()), root, total, messages)
        self._whole[whole] = chain
        return chain

    def _follow(self, chain: Chain, link: bytes, total: int, messages: list[Any]) -> Chain:
        """Return ``chain``, which ends with ``link`` and ``total`` characters, and ``messages``."""
        seen, known = self._seen, self._seen.get
        links, sizes = [*chain.links], [*chain.sizes]
        for message in messages:
            content = message.get("content")
            role = message.get("role")
            if content.__class__ is str and role.__class__ is str and len(message) == 2:
                # Not the text itself as a key: that would keep whole conversations in memory.
                key = hash((link, role, content))
                cached = known(key)
                if cached is None:
                    cached = seen[key] = _digest(link, orjson.dumps((role, content)))
                link = cached
                total += len(content)
            else:
                written = _unmarked(message, orjson.OPT_SORT_KEYS)
                link = _digest(link, written)
                total += len(written)
            links.append(link)
            sizes.append(total)
        return Chain(tuple(links), tuple(sizes))


class Wish(NamedTuple):
    """What a request says of its slot. ``named``: by its number, -1: what llama-server likes.

    ``prompts``: how many it has, each of which needs a slot; ``prefix``: what it shares with
    others; ``opening``: what it begins with, if it has tools; ``raw``: its prompt is no
    conversation.
    """

    chain: Chain
    named: int | None = None
    prompts: int = 1
    prefix: SharedPrefix | None = None
    opening: Opening | None = None
    raw: bool = False


def before_messages(body: Mapping[str, Any], format: str) -> dict[str, Any]:
    """Return what of ``body`` becomes part of the prompt besides the messages, in a fixed order."""
    if BEFORE.isdisjoint(body):
        return {}
    found = {name: body[name] for name in _BEFORE.get(format, _COMMON) if name in body}
    if format == "anthropic" and "system" in found:
        found["system"] = unstamped(found["system"])
    return found


NO_WISH: Final = Wish(NO_CHAIN)


def may_answer_more(body: Mapping[str, Any], tokens: int) -> bool:
    """Return whether an answer to ``body`` may have more than so many tokens, as far as it says."""
    limits = [limit for name in _LIMITS if type(limit := body.get(name)) is int]
    return not limits or not 0 <= min(limits) <= max(limits) <= tokens


def short_wish(body: Mapping[str, Any]) -> Wish:
    """Return that of a request whose conversation isn't known by a chain: too short, with its
    answer, or one that goes on with nothing.
    """
    if "id_slot" not in body and "prompt" not in body:
        return NO_WISH
    return Wish(NO_CHAIN, _named(body), prompts_in(body))


def wish_of(
    body: Mapping[str, Any],
    chains: Chains,
    format: str,
    owner: str,
    written: Written = NOTHING_WRITTEN,
) -> Wish:
    """Return that of a request of ``owner``; ``written``: of its personality.

    One that wants nothing cached, or adapters of its own, has llama-server empty its slot first: it
    goes on with nothing.
    """
    if body.get("cache_prompt") is False or "lora" in body:
        return short_wish(body)
    prefix = opening = None
    if "tools" in body:
        opening = opening_of(body, format, before_messages(body, format), written)
    elif written.text:
        before = before_messages(body, format)
        prefix = shared_prefix(body, format, before, written.text, written.arguments)
    chain = chains.of(body, format, owner, prefix, opening)
    if not chain.shared:
        prefix = opening = None
    raw = format not in MESSAGES
    return Wish(chain, _named(body), prompts_in(body), prefix, opening, raw)


def wish_in(
    raw: bytes, format: str, owner: str, written: Written = NOTHING_WRITTEN
) -> tuple[Wish, None]:
    """Return that of the body in ``raw``, a JSON object. For :data:`gateway.workers.WORKERS`."""
    try:
        body = orjson.loads(raw)
    except ValueError:  # what only the standard library can read
        return Wish(NO_CHAIN), None
    return wish_of(body, Chains(), format, owner, written), None


def _named(body: Mapping[str, Any]) -> int | None:
    named = body.get("id_slot")
    if named is None or (type(named) is int and 0 <= named < _MOST_SLOTS):
        return named
    return -1  # llama-server refuses it, or makes something of it


def links_of_prefixes(text: str, arguments: Iterable[TemplateArguments]) -> list[bytes]:
    """Return what stands for ``text`` with each of these ``arguments``, for every key."""
    link = _digest(b"shared", text.encode("utf-8", "surrogatepass"))
    return [_digest(link, orjson.dumps(each.told)) for each in arguments]


def _opened(chain: Chain, opening: Opening, owner: str) -> Chain:
    """Return ``chain`` behind the links of ``opening``.

    Its text alone counts nothing: with other tools the prompt is another one from there on, or from
    the beginning.
    """
    if not chain.links:
        return NO_CHAIN
    links = (*opening.links_of(owner), *chain.links)
    return Chain(links, (0, opening.size, *chain.sizes), shared=OPENING_LINKS)


def _of_pieces(link: bytes, pieces: Iterable[Piece]) -> Chain:
    links: list[bytes] = []
    sizes: list[int] = []
    total = 0
    for data, size in pieces:
        link = _digest(link, data)
        total += size
        links.append(link)
        sizes.append(total)
    return Chain(tuple(links), tuple(sizes))


def _unmarked(value: Any, option: int = 0) -> bytes:
    """Return ``value`` as JSON, without marks for caching."""
    written = orjson.dumps(value, option=option)
    return written if MARK not in written else orjson.dumps(unmarked(value), option=option)


def _digest(link: bytes, data: bytes) -> bytes:
    return blake2b(data, digest_size=_LINK, key=link).digest()
