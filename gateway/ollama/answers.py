"""Answers of OpenAI's, which come as a stream of events, in the lines of Ollama's. Pure.

Ollama's documentation: docs/api.md, and docs/api/streaming.mdx and errors.mdx; the names and the
order of fields are those of its ``api/types.go``. What a client wants as one answer is made of the
same events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from gateway.errors import GatewayError
from gateway.ollama import context as contexts
from gateway.proxy.body import JsonObject, serialise
from gateway.proxy.sse import Usage, usage_of

#: The most bytes of one event.
LONGEST: Final = 16 * 2**20
_REASONS: Final = {"length": "length", "limit": "length"}
_NS: Final = 1_000_000_000


def now() -> str:
    """Return the time, as Ollama writes it (RFC 3339, in UTC)."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Clock:
    """The time that an answer has taken, in seconds. ``loading``: how long its model was loaded."""

    loading: Callable[[], float] = lambda: 0.0
    started: float = field(default_factory=time.perf_counter)

    def total(self) -> int:
        """Return the nanoseconds since the request came."""
        return max(1, round((time.perf_counter() - self.started) * _NS))


@dataclass(slots=True)
class Shape:
    """What an answer looks like: that of /api/chat, or of /api/generate.

    ``model``: as the client calls it. ``before``: the messages that a ``context`` begins with.
    """

    model: str
    chat: bool
    before: tuple[JsonObject, ...] | None = None

    def line(
        self,
        text: str = "",
        thought: str = "",
        calls: list[JsonObject] | None = None,
        *,
        done: bool = False,
    ) -> JsonObject:
        """Return a piece of an answer, or all of one that is ``done``."""
        made: JsonObject = {"model": self.model, "created_at": now()}
        if self.chat:
            message: JsonObject = {"role": "assistant", "content": text}
            if thought:
                message["thinking"] = thought
            if calls:
                message["tool_calls"] = calls
            made["message"] = message
        else:
            made["response"] = text
            if thought:
                made["thinking"] = thought
            if calls:
                made["tool_calls"] = calls
        made["done"] = done
        return made

    def empty(self, reason: str) -> JsonObject:
        """Return an answer to a request that asks for none: ``load`` or ``unload``."""
        return {**self.line(done=True), "done_reason": reason}


@dataclass(slots=True)
class _Call:
    """A call of a tool, as far as it has come."""

    name: str = ""
    arguments: str = ""
    id: str | None = None

    def whole(self, index: int) -> JsonObject | None:
        """Return it in Ollama's shape; None if it was cut off."""
        try:
            arguments = orjson.loads(self.arguments) if self.arguments else {}
        except ValueError:
            return None
        if not isinstance(arguments, dict):
            return None
        function = {"index": index, "name": self.name, "arguments": arguments}
        return {**({"id": self.id} if self.id else {}), "function": function}


class Reader:
    """Reads the events of one answer: give each to :meth:`take`."""

    def __init__(self, shape: Shape, clock: Clock) -> None:
        self.shape = shape
        self._clock = clock
        self._first: float | None = None
        self._calls: dict[int, _Call] = {}
        self._timings: Mapping[str, Any] = {}
        self.usage: Usage | None = None
        self.reason: str | None = None
        #: The text so far, if a context is made of it.
        self._said: list[str] | None = [] if shape.before is not None else None

    def take(self, event: JsonObject) -> tuple[str, str, list[JsonObject]]:
        """Return the text, the thought and the probabilities in ``event``."""
        if isinstance(timings := event.get("timings"), dict):
            self._timings = timings
        self.usage = usage_of(event) or self.usage
        choices = event.get("choices")
        if choices is None:  # of llama.cpp's own
            text = event.get("content")
            if event.get("stop") is True:
                self.reason = _reason(event.get("stop_type"))
            return self._note(text), "", []
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return "", "", []
        choice = choices[0]
        if (finish := choice.get("finish_reason")) is not None:
            self.reason = _reason(finish)
        delta = choice.get("delta") or choice.get("message")  # of an answer that is no stream
        if not isinstance(delta, dict):
            delta = {"content": choice.get("text")}
        for piece in delta.get("tool_calls") or ():
            self._take_call(piece)
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        thought = thought if isinstance(thought, str) else ""
        if self._first is None and (thought or self._calls):
            self._first = time.perf_counter()
        return self._note(delta.get("content")), thought, _probabilities(choice.get("logprobs"))

    def _note(self, text: Any) -> str:
        """Return the text in a piece."""
        if not isinstance(text, str) or not text:
            return ""
        if self._first is None:
            self._first = time.perf_counter()
        if self._said is not None:
            self._said.append(text)
        return text

    def _take_call(self, piece: Any) -> None:
        function = piece.get("function") if isinstance(piece, dict) else None
        if not isinstance(function, dict):
            return
        index = piece.get("index")
        call = self._calls.setdefault(index if isinstance(index, int) else 0, _Call())
        if isinstance(name := piece.get("id"), str):
            call.id = name
        for key in ("name", "arguments"):
            if isinstance(more := function.get(key), str):
                setattr(call, key, getattr(call, key) + more)

    def calls(self) -> list[JsonObject]:
        """Return the calls of tools that have come whole."""
        whole = (call.whole(index) for index, call in sorted(self._calls.items()))
        return [call for call in whole if call is not None]

    def ending(self) -> JsonObject:
        """Return the fields that the last line has besides: why it ended, and what it took."""
        made: JsonObject = {"done_reason": self.reason or "stop"}
        before = self.shape.before
        if before is not None and self._said is not None:
            said = {"role": "assistant", "content": "".join(self._said)}
            if (kept := contexts.pack([*before, said])) is not None:
                made["context"] = kept
        return made | self._numbers()

    def _numbers(self) -> JsonObject:
        usage, clock = self.usage or Usage(), self._clock
        total, loading = clock.total(), round(clock.loading() * _NS)
        waited = self._first - clock.started if self._first is not None else 0.0
        # What a server elsewhere doesn't tell is as it was seen from here.
        prompt = self._milliseconds("prompt_ms") or max(1, round(waited * _NS) - loading)
        rest = max(1, total - round(waited * _NS))
        return {
            "total_duration": total,
            "load_duration": loading,
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": prompt,
            "eval_count": usage.completion_tokens,
            "eval_duration": self._milliseconds("predicted_ms") or rest,
        }

    def _milliseconds(self, name: str) -> int:
        value = self._timings.get(name)
        return round(value * 1_000_000) if isinstance(value, int | float) and value > 0 else 0


def _reason(finish: Any) -> str:
    return _REASONS.get(finish, "stop")


def _probabilities(told: Any) -> list[JsonObject]:
    """Return the tokens of a piece with their probabilities, as far as it has them."""
    content = told.get("content") if isinstance(told, dict) else None
    found = [_token(one) for one in content or () if isinstance(one, dict)]
    for one, token in zip(content or (), found, strict=False):
        if top := one.get("top_logprobs"):
            token["top_logprobs"] = [_token(other) for other in top if isinstance(other, dict)]
    return found


def _token(told: JsonObject) -> JsonObject:
    made = {"token": told.get("token"), "logprob": told.get("logprob")}
    return {**made, "bytes": told["bytes"]} if told.get("bytes") else made


class _Events:
    """Splits a stream of events, whose lines end with LF or CRLF."""

    def __init__(self) -> None:
        self._rest = b""
        self.over = False

    def feed(self, data: bytes) -> list[JsonObject | None]:
        """Return the events that ``data`` completes; None stands for the last of all."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            self._rest, self.over = b"", True
        found: list[JsonObject | None] = []
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"error":  # of llama-server's before 2025-06
                name, value = b"data", b'{"error":%b}' % value
            if name != b"data":
                continue
            value = value.strip()
            if value == b"[DONE]":
                found.append(None)
                continue
            try:
                event = orjson.loads(value)
            except ValueError:
                continue
            if isinstance(event, dict):
                found.append(event)
        return found


def _message_of(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else "the model's server gave no reason"


class Lines:
    """Makes the lines of a streamed answer: a :class:`gateway.proxy.call.Mender`."""

    def __init__(self, shape: Shape, clock: Clock) -> None:
        self._reader = Reader(shape, clock)
        self._events = _Events()
        self.complete = False
        self.over = False
        #: The last piece that was sent.
        self.latest: bytes | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the lines that ``data`` completes; maybe none."""
        made = b"".join(map(self._line, self._events.feed(data)))
        self.over = self._events.over
        if made:
            self.latest = made
        return made

    def half(self) -> bytes | None:
        """Return nothing, as what goes out are whole lines; None behind the last one."""
        return None if self.complete else b""

    def pulse(self, words: bytes, waiting: bool) -> bytes:
        """Return a line that adds nothing to the answer: clients take no other remarks."""
        return _as_line(self._reader.shape.line())

    def last(self, event: bytes, error: GatewayError) -> bytes:
        """Return the line that ends an answer with ``error``, after which nothing is missing."""
        self.complete = True
        return _as_line({"error": error.public})

    def _line(self, event: JsonObject | None) -> bytes:
        if self.complete:
            return b""
        reader = self._reader
        if event is None:
            return self._ended()
        if (error := event.get("error")) is not None:
            self.complete = True
            return _as_line({"error": _message_of(error)})
        text, thought, tokens = reader.take(event)
        made = b""
        if text or thought or tokens:
            line = reader.shape.line(text, thought)
            made = _as_line({**line, "logprobs": tokens} if tokens else line)
        return made + self._ended() if event.get("stop") is True else made

    def _ended(self) -> bytes:
        self.complete = True
        reader, made = self._reader, b""
        if calls := reader.calls():
            made = _as_line(reader.shape.line(calls=calls))
        return made + _as_line({**reader.shape.line(done=True), **reader.ending()})


def _as_line(made: JsonObject) -> bytes:
    return serialise(made) + b"\n"


class Gathered:
    """Makes one answer of the whole stream: a :class:`gateway.proxy.gathered.Gatherer`."""

    def __init__(self, shape: Shape, clock: Clock) -> None:
        self._reader = Reader(shape, clock)
        self._stream = _Events()
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._tokens: list[JsonObject] = []
        self.events = 0
        self.error: JsonObject | None = None
        self.complete = False

    def feed(self, data: bytes) -> None:
        """Read a piece of the stream, as it came."""
        for event in self._stream.feed(data):
            if event is None:
                self.complete = True
                continue
            if (error := event.get("error")) is not None:
                self.error = error if isinstance(error, dict) else {"message": _message_of(error)}
                continue
            self.events += 1
            text, thought, tokens = self._reader.take(event)
            self._texts.append(text)
            self._thoughts.append(thought)
            self._tokens += tokens
            self.complete |= event.get("stop") is True
        if self._stream.over:
            self.error = {"message": "the model's server sent an event that is too long"}

    def rewritten(self, body: bytes, whole: Any) -> bytes:
        """Return the answer of a server that sends no stream though it was asked for one.

        ``whole`` is what ``body`` holds: an answer of :meth:`answer` stays as it is.
        """
        if not isinstance(whole, dict) or "choices" not in whole:
            return body
        text, thought, self._tokens = self._reader.take(whole)
        self._texts, self._thoughts = [text], [thought]
        return serialise(self.answer())

    def usage(self) -> Usage | None:
        """Return what it took, as far as that was told."""
        return self._reader.usage

    def answer(self) -> JsonObject:
        """Return the whole answer."""
        reader = self._reader
        texts, thoughts = "".join(self._texts), "".join(self._thoughts)
        made = reader.shape.line(texts, thoughts, reader.calls(), done=True)
        made |= reader.ending()
        return {**made, "logprobs": self._tokens} if self._tokens else made
