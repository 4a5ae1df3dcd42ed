"""What is written down of a saved conversation, beside its file: JSON, which is not trusted."""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.conversations.chain import Chain
from gateway.conversations.index import Saved

#: Bytes of a link.
_LINK: Final = 16
#: Tokens of a prompt that may be missing in the file: those that were generated last.
_TOLERANCE: Final = 64
_TEXTS: Final = ("name", "model", "fingerprint", "owner")
_NUMBERS: Final = ("seconds", "created", "used")
_COUNTS: Final = ("tokens", "size", "check")


def written(saved: Saved) -> bytes:
    """Return ``saved`` as it is written down."""
    links = b"".join(saved.chain.links).hex()
    fields = {name: getattr(saved, name) for name in Saved.__slots__ if name != "chain"}
    return orjson.dumps(
        {**fields, "links": links, "sizes": saved.chain.sizes, "shared": saved.chain.shared}
    )


def read(text: bytes) -> Saved | None:
    """Return what is written there; ``None`` if that isn't something that :func:`written` wrote."""
    try:
        fields: dict[str, Any] = orjson.loads(text)
        chain = _chain(fields.pop("links"), fields.pop("sizes"), fields.pop("shared", 0))
        saved = Saved(**fields, chain=chain)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    return saved if _makes_sense(saved) else None


def _chain(links: str, sizes: list[int], shared: int) -> Chain:
    joined = bytes.fromhex(links)
    each = tuple(joined[at : at + _LINK] for at in range(0, len(joined), _LINK))
    if len(joined) != _LINK * len(sizes):
        raise ValueError("not a size for each link")
    before = 0
    for size in sizes:
        if size.__class__ is not int or size < before:
            raise ValueError("sizes that don't grow")
        before = size
    if type(shared) is not int or not 0 <= shared <= len(each):
        raise ValueError("more is shared than there is")
    return Chain(each, tuple(sizes), shared)


def _makes_sense(saved: Saved) -> bool:
    promised = saved.promised
    return (
        all(type(getattr(saved, name)) is str for name in _TEXTS)
        and all(type(getattr(saved, name)) in (int, float) for name in _NUMBERS)
        and all(_is_count(getattr(saved, name)) for name in _COUNTS)
        and (promised is None or (_is_count(promised) and promised <= saved.tokens + _TOLERANCE))
        and saved.tokens > 0
        and saved.seconds >= 0
        and bool(saved.chain.links)
    )


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
