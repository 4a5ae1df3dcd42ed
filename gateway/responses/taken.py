"""A request for a response, looked through: what it asks of the memory, and what a model is sent.

Items stay JSON from the request to the database, and from there to the model: a conversation may
have pictures of megabytes, and whoever parses or writes one of those holds CPython's lock, so that
nobody else is answered meanwhile. Pure.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.proxy.body import parse_object, serialise
from gateway.responses.asked import (
    MEMORY,
    REPEATED,
    Asked,
    JsonObject,
    asked_of,
    items_in,
    listed,
)

_NOTHING = b"{}"


class Taken(NamedTuple):
    """``repeated``: the fields that its response repeats; ``rest``: what is the model's but its
    input, as JSON; ``has_input``: whether it has one.

    ``items``: of a request in a conversation, the id of each item and its bytes of JSON.
    """

    asked: Asked
    repeated: JsonObject
    rest: bytes
    has_input: bool
    items: tuple[tuple[str, int], ...] = ()


def take(raw: bytes, most: int, id: str) -> tuple[Taken, bytes | None]:
    """Return what the body ``raw`` of at most so many values asks, and its own items as JSON with
    commas between them, if it remembers anything. For :data:`gateway.workers.WORKERS`.

    ``id``: that of its response. The items of a conversation have ids, and are sent with them, so
    that the prompt is the same when they come again. Raises
    :class:`gateway.errors.BadRequest`.
    """
    body = parse_object(raw, most)
    asked = asked_of(body)
    if not asked.remembers:
        return Taken(asked, {}, _NOTHING, has_input=False), None
    own = items_in(body)
    sizes: list[tuple[str, int]] = []
    if asked.conversation is None:
        items = inner(own)
    else:
        own = listed(own, id)
        each = [serialise(item) for item in own]
        sizes = [(item["id"], len(text)) for item, text in zip(own, each, strict=True)]
        items = b",".join(each)
    rest = {name: value for name, value in body.items() if name not in MEMORY and name != "input"}
    repeated = {name: body[name] for name in REPEATED if name in body}
    return Taken(asked, repeated, serialise(rest), "input" in body, tuple(sizes)), items


def sent_on(taken: Taken, before: Sequence[bytes], own: bytes) -> list[bytes]:
    """Return the body that a model is sent, in pieces: the items that came ``before``, and then its
    own.
    """
    if not (before or taken.has_input):
        return [taken.rest]
    pieces = [b'{"input":[']
    for items in (*before, own):
        if items:
            pieces += (items, b",")
    if len(pieces) > 1:
        pieces.pop()
    pieces += (b"]",) if taken.rest == _NOTHING else (b"],",)
    return [*pieces, taken.rest[1:]]


def inner(items: Sequence[Mapping[str, object]]) -> bytes:
    """Return ``items`` as JSON with commas between them."""
    return serialise(items)[1:-1]


def parsed(items: Sequence[bytes]) -> list[JsonObject]:
    """Return what :func:`inner` made, several in a row. May take a while."""
    text = b",".join([each for each in items if each])
    found: list[JsonObject] = parse_object(b'{"items":[%b]}' % text, sys.maxsize)["items"]
    return found
