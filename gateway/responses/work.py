"""The work on one response: what becomes of it while a model writes it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from gateway.errors import Cancelled, GatewayError
from gateway.proxy.body import serialise
from gateway.responses.asked import Asked, JsonObject, dress, listed
from gateway.responses.taken import Taken
from gateway.streams.recording import EndWork, Recording

#: The events that end a response.
_LAST: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_ITEM_DONE: Final = "response.output_item.done"


def new_id() -> str:
    """Return an id for a response."""
    return f"resp_{secrets.token_hex(24)}"


class Work:
    """The response ``id`` of the key ``key_id`` to what was ``taken``, with its own ``items``."""

    def __init__(self, key_id: str, taken: Taken, items: bytes, id: str) -> None:
        self.id = id
        self.key_id = key_id
        self.asked: Asked = taken.asked
        #: The items of its own input, as JSON with commas between them.
        self.items = items
        #: Of those in a conversation: the id of each, and its bytes.
        self.each = taken.items
        self.created = time.time()
        self._body = taken.repeated
        self._taken_bytes = len(taken.rest) + len(items)
        self._output: list[JsonObject] = []
        self._cancelled = False
        #: Whether anything of it has come, and whether it has come to its end.
        self.begun = self.complete = False
        #: The response as it is now.
        self.response: JsonObject = {
            "id": self.id,
            "object": "response",
            "created_at": int(self.created),
            "status": "queued",
            "model": None,
            "output": [],
        }
        dress(self.response, self._body, self.asked, id)
        #: Its stream, if it is one; it is set when that has begun, or will never begin.
        self.recording: Recording | None = None
        self.started = asyncio.Event()
        self.ending = asyncio.Event()  # set when nothing more comes
        self._end_work: EndWork | None = None
        #: Whether nothing more comes, and whether it was deleted.
        self.over = self.deleted = False
        #: Tells whether it was sent to its model, once that is known elsewhere than by its events.
        self.was_sent: Callable[[], bool] = lambda: False
        #: Whether the store has it since it was begun.
        self.announced = False
        #: Why no answer came.
        self.error: GatewayError | None = None

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return self._taken_bytes + (0 if self.recording is None else self.recording.size)

    def look(self) -> None:
        """Bring its status up to date: what isn't streamed tells nothing before its end."""
        if self.response["status"] == "queued" and self.was_sent():
            self.response["status"] = "in_progress"

    def note(self, kind: str, event: dict[str, Any]) -> None:
        """Note an event of its stream, and make the response in it the one that is kept."""
        self.begun = True
        response = event.get("response")
        if isinstance(response, dict):
            dress(response, self._body, self.asked, self.id)
            if kind in _LAST:
                self._end(response)
            elif isinstance(status := response.get("status"), str):
                self.response["status"] = status
        elif kind == _ITEM_DONE and isinstance(item := event.get("item"), dict):
            self._output.append(item)
            self.response["status"] = "in_progress"
        elif self.response["status"] == "queued":
            self.response["status"] = "in_progress"

    def rewritten(self, _body: bytes, parsed: Any) -> bytes:
        """Return a whole answer as its client gets it."""
        if not isinstance(parsed, dict):
            return _body
        self.begun = True
        dress(parsed, self._body, self.asked, self.id)
        self._end(parsed)
        return serialise(parsed)

    def _end(self, response: JsonObject) -> None:
        if not isinstance(response.get("status"), str):  # no llama-server's, but it has come
            response["status"] = "completed"
        if response["status"] == "failed" and not response.get("output"):
            response["output"] = self._output  # as far as it had come
        self.response, self.complete = response, True

    @property
    def end_work(self) -> EndWork | None:
        """Ends the work on it with an error, while it is under way."""
        return self._end_work

    @end_work.setter
    def end_work(self, value: EndWork | None) -> None:
        self._end_work = value
        if self._cancelled:  # before there was anything to end
            self.cancel()

    def cancel(self) -> None:
        """End the work on it."""
        self._cancelled = True
        if self._end_work is not None and not self.over:
            self._end_work(Cancelled("this response was cancelled by its client"))

    def fail(self, error: GatewayError) -> None:
        """Note that no answer comes."""
        self.error = error
        if not self.complete:
            self.response["status"] = "failed"
            self.response["error"] = {"code": error.code, "message": error.public}
            self.complete = True

    def ended(self) -> None:
        """Note that nothing more comes: it is kept as it is now."""
        if self._cancelled or not self.complete:  # its client has gone
            self.response = {
                **self.response,
                "status": "cancelled",
                "error": None,
                "output": self.response.get("output") or self._output,
            }
        self.over = True
        self.started.set()
        self.ending.set()


def said(work: Work) -> list[tuple[str, bytes]]:
    """Return the items that were asked and answered in a conversation, as they are listed: the id
    of each, and its JSON. May take a while.
    """
    items, start = [], 0
    for id, size in work.each:
        items.append((id, work.items[start : start + size]))
        start += size + 1
    output = listed(work.response["output"], work.id, len(items))
    return items + [(item["id"], serialise(item)) for item in output]
