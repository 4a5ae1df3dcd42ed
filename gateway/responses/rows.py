"""What the store keeps of a response, packed. May take a while: not for the event loop."""

from __future__ import annotations

from gateway.access.stored_responses import StoredItem, StoredResponse
from gateway.responses.packing import pack, pack_events, pack_items, pack_text
from gateway.responses.work import Work, said

_MICRO = 1e6


def rows_of(work: Work) -> tuple[StoredResponse, list[StoredItem]]:
    """Return the response of ``work``, which is over, and what it adds to its conversation."""
    items: list[StoredItem] = []
    if work.asked.conversation is not None:
        items = [StoredItem(id, pack_text(item)) for id, item in said(work)]
    recording, events = work.recording, None
    if recording is not None and not recording.lost:
        events = pack_events(recording.pieces, chunked=recording.chunked)
    return row_of(work)._replace(events=events), items


def row_of(work: Work, running: str | None = None) -> StoredResponse:
    """Return the response of ``work`` as it is now; ``running``: the gateway that works on it."""
    return StoredResponse(
        work.id,
        work.key_id,
        int(work.created * _MICRO),
        work.asked.previous,
        work.asked.conversation,
        running,
        pack(work.response),
        pack_items(work.items),
    )
