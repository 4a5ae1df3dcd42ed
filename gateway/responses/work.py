"""The work on one response: what becomes of it while a model writes it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from gateway.errors import Cancelled, GatewayError
from gateway.proxy.body import serialise
from gateway.responses.asked import Asked, JsonObject, dress, items_in, listed
from gateway.streams.recording import EndWork, Recording

#: The events that end a response.
_LAST: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_ITEM_DONE: Final = "response.output_item.done"


class Work:
    """A response of the key ``key_id`` to ``body``, which came in ``size`` bytes."""

    def __init__(self, key_id: str, asked: Asked, body: JsonObject, size: int = 0) -> None:
        self.id = f"resp_{secrets.token_hex(24)}"
        self.key_id = key_id
        self.asked = asked
        self._asked_bytes = size
        #: The items of its own input. Those of a conversation have ids, and are sent with them, so
        #: that the prompt is the same when they come again.
        self.items = items_in(body)
        if asked.conversation is not None:
            self.items = listed(self.items, self.id)
        self.created = time.time()
        self._body = body
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
        dress(self.response, body, asked, self.id)
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
        return self._asked_bytes + (0 if self.recording is None else self.recording.size)

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
        if response.get("status") == "failed" and not response.get("output"):
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


def said(work: Work) -> list[JsonObject]:
    """Return what was asked and answered, as it is listed."""
    return listed([*work.items, *work.response["output"]], work.id)
