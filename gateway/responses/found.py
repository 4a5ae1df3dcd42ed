"""A response that was found, or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import orjson

from gateway.errors import BadRequest, NotFound
from gateway.responses.asked import JsonObject
from gateway.responses.packing import unpack, unpack_events, unpack_items, unpack_texts
from gateway.responses.taken import inner
from gateway.responses.work import Work

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.access.store
    from gateway.access.stored_responses import StoredResponse


class Found(NamedTuple):
    """A kept response: itself, what it was asked (items as JSON with commas between them), its
    events, and the work on it.
    """

    response: JsonObject
    items: bytes
    previous: str | None
    events: bytes | None
    work: Work | None


def unfinished(id: str, status: str, param: str) -> BadRequest:
    """Return the error for a response that nobody can go on with yet."""
    status = status.replace("_", " ")
    code = "response_not_finished"
    return BadRequest(f"the response {id!r} is still {status}", param=param, code=code)


def found_in(kept: StoredResponse) -> Found:
    """Return what was kept. May take a while."""
    events = None if kept.events is None else unpack_events(kept.events)
    return Found(unpack(kept.response), unpack_items(kept.input), kept.previous_id, events, None)


def said_in(chain: Sequence[StoredResponse], most: int) -> list[bytes]:
    """Return what was asked and answered in ``chain``. Raises :class:`PayloadTooLarge` for more
    than ``most`` bytes. May take a while.
    """
    texts = unpack_texts([part for one in chain for part in (one.input, one.response)], most)
    items: list[bytes] = []
    for asked, response in zip(texts[::2], texts[1::2], strict=True):
        items += (asked[1:-1], inner(orjson.loads(response)["output"]))
    return items


def not_found(id: str) -> NotFound:
    """Return the error for a response that its key does not have."""
    return NotFound(
        f"this key has no response {id[:100]!r}", code="response_not_found", param="response_id"
    )
