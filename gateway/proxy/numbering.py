"""Streams of OpenAI's Responses as OpenAI sends them: with the numbers llama-server leaves out.

OpenAI's events say where they belong (``output_index``, ``content_index``) and in which order they
come (``sequence_number``); its clients put the answer together by these numbers, and the
``responses.stream`` of Python and of Node.js both fail without. llama-server tells the item's id
only (llama.cpp, issue 20607). Nor does it announce the text of a thought before its first piece.

What an event has already stays as it is, so a server that numbers its events is left alone. Pure.
"""

from __future__ import annotations

from typing import Any

import orjson

_OPENING = frozenset({"response.created", "response.in_progress", "response.queued"})
_THOUGHT = "response.reasoning_text.delta"


class Numbering:
    """One stream: give each piece that comes to :meth:`feed`, and send on what it returns.

    ``model`` and ``created_at`` (seconds since 1970) are what the opening events lack besides.
    """

    def __init__(self, model: str, created_at: int) -> None:
        self._given = {"created_at": created_at, "model": model, "output": []}
        self._rest = b""
        self._foreign = False
        self._sequence = 0
        self._items: dict[str, int] = {}  # id -> output_index
        self._parts: dict[str, int] = {}  # id -> how many parts were announced

    def feed(self, data: bytes) -> bytes:
        """The events that are complete with ``data``, numbered; maybe none."""
        if b"\r" in data or self._foreign:
            # Lines end otherwise than llama-server's: its JSON has a CR only as an escape.
            self._foreign, rest, self._rest = True, self._rest, b""
            return rest + data
        *events, self._rest = (self._rest + data).split(b"\n\n")
        return b"".join(b"%b\n\n" % self._mended(event) for event in events)

    def last(self, event: bytes) -> bytes:
        """An ``event`` of ours that ends the stream here, numbered; what was begun is dropped."""
        self._rest = b""
        return self.feed(event)

    def _mended(self, raw: bytes) -> bytes:
        start = raw.find(b"data: {")
        if start < 0:
            return raw
        try:
            event = orjson.loads(raw[start + 6 :])
        except ValueError:
            return raw  # of more than one line of data: not llama-server's
        if not isinstance(event, dict) or not isinstance(kind := event.get("type"), str):
            return raw
        before = b""
        if kind == _THOUGHT and "content_index" not in event and self._is_new(event):
            before = self._announcement(event["item_id"])
        return before + raw[: start + 6] + orjson.dumps(self._numbered(kind, event))

    def _is_new(self, event: dict[str, Any]) -> bool:
        return isinstance(name := event.get("item_id"), str) and name not in self._parts

    def _announcement(self, name: str) -> bytes:
        kind = "response.content_part.added"
        part = {"type": "reasoning_text", "text": ""}
        event = self._numbered(kind, {"type": kind, "item_id": name, "part": part})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(event))

    def _numbered(self, kind: str, event: dict[str, Any]) -> dict[str, Any]:
        event.setdefault("sequence_number", self._sequence)
        self._sequence += 1
        if kind in _OPENING and isinstance(response := event.get("response"), dict):
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
