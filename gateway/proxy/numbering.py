"""Adds the sequence numbers to streams of OpenAI's Responses, which llama-server leaves out.

OpenAI's events say where they belong (``output_index``, ``content_index``) and in which order they
come (``sequence_number``); its clients put the answer together by these numbers, and the
``responses.stream`` of Python and of Node.js both fail without. llama-server tells the item's id
only (llama.cpp, issue 20607). Nor does it announce the text of a thought before its first piece.

What an event has already stays as it is, so a server that numbers its events is left alone; until
events of our own have gone out in the stream, which keep it alive. From then on all are numbered
anew. Where ours were the first, they announced the response, so its id stays for all of them. Pure.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import orjson

from gateway.errors import GatewayError
from gateway.proxy.body import serialise
from gateway.proxy.heartbeat import comment

_CREATED = "response.created"
_OPENING = frozenset({_CREATED, "response.in_progress", "response.queued"})
_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})
#: The most bytes of one event. llama-server's last event repeats the whole answer.
LONGEST = 16 * 2**20
_THOUGHT = "response.reasoning_text.delta"


class Numbering:
    """The numbering of one stream: give each piece that comes to :meth:`feed`, and send on what it
    returns.

    ``model`` and ``created_at`` (seconds since 1970) are what the opening events lack besides.
    ``renames``: responses get that name for their model even if they have another. ``id``: the
    name of the response, in place of the server's. ``note``: called with the kind of each event,
    and with the event, which it may change.
    """

    def __init__(
        self,
        model: str,
        created_at: int,
        *,
        renames: bool = False,
        id: str | None = None,
        note: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> None:
        self._renames = renames
        self._own_id = id
        self._note = note
        self._given = {"created_at": created_at, "model": model, "output": []}
        self._rest = b""
        self._foreign = False
        self._sequence = 0
        self._id: str | None = None
        self._began = False  # with events of our own, the first of all
        self._anew = False  # others were sent among those that came
        self.complete = False
        #: Whether an event was too long to be kept until its end, so that nothing of it is sent.
        self.over = False
        self._items: dict[str, int] = {}  # id -> output_index
        self._parts: dict[str, int] = {}  # id -> how many parts were announced
        #: The last piece that was sent.
        self.latest: bytes | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the events that are complete with ``data``, numbered; maybe none."""
        if self.over:
            return b""
        data = self._rest + data
        if b"\r" in data or self._foreign:
            # Lines end otherwise than llama-server's: its JSON has a CR only as an escape.
            if not (self._began or self._renames or self._own_id):
                self._foreign, self._rest = True, b""
                self.latest = data
                return data
            data = data.replace(b"\r\n", b"\n")
        *events, self._rest = data.split(b"\n\n")
        if len(self._rest) > LONGEST:
            self._rest, self.over = b"", True
        mended = b"".join([self._mended(event) for event in events])
        if mended:
            self.latest = mended
        return mended

    def half(self) -> bytes | None:
        """Return what was sent of an event that isn't complete; None where that is not known."""
        if not self._foreign or self.latest is None:
            return b""
        end = max(self.latest.rfind(b"\n\n") + 2, self.latest.rfind(b"\r\n\r\n") + 4)
        return self.latest[end:] if end > 3 else None

    def pulse(self, words: bytes, waiting: bool) -> bytes:
        """Return events that say that the response is still coming, with ``words`` in a comment.

        The idle timer of Codex counts nothing but events. The first of all announces the response,
        as OpenAI's clients want it.
        """
        said = comment(words)
        if self._foreign or self.complete or (self._id is None and self._sequence):
            return said
        state = "queued" if waiting else "in_progress"
        if self._id is None:
            self._id = self._own_id or f"resp_{secrets.token_hex(24)}"
            self._began = True
            said += self._event(_CREATED, {"response": self._response(state)})
        self._anew = True
        said += self._event(f"response.{state}", {"response": self._response(state)})
        self.latest = said
        return said

    def last(self, event: bytes, error: GatewayError) -> bytes:
        """Return an ``event`` of ours that ends the stream here, numbered; what was begun is
        dropped.

        With it goes ``response.failed``, which is what Codex looks for, but only in a stream that
        then comes to a proper end.
        """
        self._rest, self.over = b"", False
        if self._foreign:
            return event
        failure = {"code": error.code, "message": error.public}
        response = {**self._response("failed"), "error": failure}
        return self.feed(event) + self._event("response.failed", {"response": response})

    def _response(self, status: str) -> dict[str, Any]:
        """Return a response of ours with the fields that OpenAI's always has."""
        return {
            "id": self._id or self._own_id or "",
            "object": "response",
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            **self._given,
        }

    def _event(self, kind: str, event: dict[str, Any]) -> bytes:
        data = orjson.dumps(self._numbered(kind, {"type": kind, **event}))
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _mended(self, raw: bytes) -> bytes:
        start = raw.find(b"data: {")
        if start < 0:
            return raw + b"\n\n"
        try:
            event = orjson.loads(raw[start + 6 :])
        except ValueError:
            return raw + b"\n\n"  # of more than one line of data: not llama-server's
        if not isinstance(event, dict) or not isinstance(kind := event.get("type"), str):
            return raw + b"\n\n"
        response = event.get("response")
        if self._renames and isinstance(response, dict) and "model" in response:
            response["model"] = self._given["model"]
        if self._began:
            if kind == _CREATED:
                return b""  # we said so already
            if isinstance(response, dict):
                response["id"] = self._id
        elif self._own_id is not None and isinstance(response, dict):
            response["id"] = self._own_id
        before = b""
        if kind == _THOUGHT and "content_index" not in event and self._is_new(event):
            before = self._announcement(event["item_id"])
        return b"%b%b%b\n\n" % (
            before,
            raw[: start + 6],
            serialise(self._numbered(kind, event)),
        )

    def _is_new(self, event: dict[str, Any]) -> bool:
        return isinstance(name := event.get("item_id"), str) and name not in self._parts

    def _announcement(self, name: str) -> bytes:
        kind = "response.content_part.added"
        part = {"type": "reasoning_text", "text": ""}
        return self._event(kind, {"item_id": name, "part": part})

    def _numbered(self, kind: str, event: dict[str, Any]) -> dict[str, Any]:
        numbered = self._with_numbers(kind, event)
        if self._note is not None:
            self._note(kind, numbered)
        return numbered

    def _with_numbers(self, kind: str, event: dict[str, Any]) -> dict[str, Any]:
        number = event.get("sequence_number")
        if self._anew or type(number) is not int:
            number = event["sequence_number"] = self._sequence
        self._sequence = number + 1
        self.complete = self.complete or kind in _LAST
        if kind in _OPENING and isinstance(response := event.get("response"), dict):
            if not self._id and isinstance(name := response.get("id"), str):
                self._id = name
            for key, value in self._given.items():
                response.setdefault(key, value)
            return event
        item = event.get("item")
        name = item.get("id") if isinstance(item, dict) else event.get("item_id")
        if not isinstance(name, str):
            return event
        event.setdefault("output_index", self._items.setdefault(name, len(self._items)))
        if item is not None or kind.startswith("response.function_call"):
            return event  # an item has no place inside of itself, arguments are no part
        if kind == "response.content_part.added":
            self._parts[name] = self._parts.get(name, 0) + 1
        event.setdefault("content_index", max(0, self._parts.get(name, 0) - 1))
        if kind.startswith("response.output_text."):
            event.setdefault("logprobs", [])
        return event
