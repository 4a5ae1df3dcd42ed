"""Puts several streamed answers to one request together, as if they had not been streamed. Pure.

Asked for several, llama-server tells in an answer that is not streamed what the first of them took
(``tools/server/server-context.cpp``: the ``choices`` of the others are put into the first's
answer, and the rest is dropped); and where one of several prompts can't be read, nothing at all,
though others may have been answered before. In a stream each one tells. So such an answer is had
as a stream, and made here into what llama-server would have said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from gateway.proxy.sse import Usage, usage_of
from gateway.proxy.telling import ToldAnswers

#: Fields about the stream, which the client hasn't asked for.
_OF_STREAMS = ("stream_options", "timings_per_token", "return_progress")
_DONE = b"data: [DONE]"


def ask_for_stream(body: dict[str, Any]) -> None:
    """Make ``body`` ask for the stream that a :class:`Gathered` reads."""
    for field in _OF_STREAMS:
        body.pop(field, None)
    body["stream"] = True


class Gatherer(Protocol):
    """A reader of a stream of several answers, which makes one answer of them."""

    events: int
    error: dict[str, Any] | None  # an event that says what went wrong

    @property
    def complete(self) -> bool:
        """Whether the last event has come."""

    def feed(self, data: bytes, /) -> None:
        """Read a piece of the stream, as it came."""

    def usage(self) -> Usage | None:
        """Return that of all answers, as far as they have told."""

    def answer(self) -> Any:
        """Return the whole answer."""


class _Events:
    """The events of a stream of several answers."""

    __slots__ = ("_answers", "_rest", "done", "error", "events")

    def __init__(self, each: int) -> None:
        self._answers = ToldAnswers(each)
        self._rest = b""
        self.events = 0
        self.done = False
        self.error: dict[str, Any] | None = None

    def feed(self, data: bytes) -> None:
        """Read a piece of the stream, as it came."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                event = orjson.loads(line[6:])
                if isinstance(error := event.get("error"), dict):
                    self.error = error
                    continue
                self.events += 1
                self._answers.take(event)
                self._take(event)
            elif line.startswith(_DONE):
                self.done = True

    def _take(self, event: dict[str, Any]) -> None:
        raise NotImplementedError

    def usage(self) -> Usage | None:
        """Return that of all answers, as far as they have told."""
        return self._answers.usage()


class GatheredChoices(_Events):
    """Chat or text completions in OpenAI's shape, ``each`` of them for one prompt."""

    __slots__ = ("_choices", "_first", "_timings", "_used")

    def __init__(self, each: int) -> None:
        super().__init__(each)
        self._choices: dict[int, _GatheredChoice] = {}
        self._first: dict[str, Any] = {}  # event that has choices
        self._timings: dict[str, Any] | None = None
        self._used: Usage | None = None  # by the first

    @property
    def complete(self) -> bool:
        """Whether the last event has come."""
        return self.done

    def answer(self) -> dict[str, Any]:
        """Return the whole answer."""
        used = self._used or Usage()
        first = self._first
        kind = first.get("object", "")
        answer = {
            "choices": [self._choices[index].whole(index) for index in sorted(self._choices)],
            "created": first.get("created"),
            "model": first.get("model"),
            "system_fingerprint": first.get("system_fingerprint"),
            "object": kind.removesuffix(".chunk") if isinstance(kind, str) else kind,
            "usage": {
                "completion_tokens": used.completion_tokens,
                "prompt_tokens": used.prompt_tokens,
                "total_tokens": used.prompt_tokens + used.completion_tokens,
                "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
            },
            "id": first.get("id"),
        }
        if self._timings is not None:
            answer["timings"] = self._timings
        return answer

    def _take(self, event: dict[str, Any]) -> None:
        for piece in event.get("choices") or ():
            index = piece.get("index", 0)
            self._first = self._first or event
            if index == 0 and isinstance(timings := event.get("timings"), dict):
                self._timings, self._used = timings, usage_of(event)
            if (choice := self._choices.get(index)) is None:
                choice = self._choices[index] = _GatheredChoice()
            choice.add(piece)


class _GatheredChoice:
    """One of the answers, assembled from its pieces at the end."""

    __slots__ = ("_calls", "_logprobs", "_reason", "_said", "_text")

    def __init__(self) -> None:
        self._reason: Any = None
        self._logprobs: list[Any] | None = None
        self._text: list[str] | None = None  # of a text completion
        self._said: dict[str, list[str]] = {"role": [], "content": []}  # of a chat's message
        self._calls: list[tuple[dict[str, Any], list[str]]] = []  # and the arguments of each

    def add(self, piece: dict[str, Any]) -> None:
        """Add a piece of the answer."""
        if (reason := piece.get("finish_reason")) is not None:
            self._reason = reason
        if isinstance(said := piece.get("logprobs"), dict):
            self._logprobs = self._logprobs if self._logprobs is not None else []
            self._logprobs += said.get("content") or ()
        delta = piece.get("delta")
        if not isinstance(delta, dict):
            self._text = self._text if self._text is not None else []
            self._text.append(piece.get("text") or "")
            return
        for field, value in delta.items():
            if field == "tool_calls":
                self._add_calls(value)
            elif field == "role":
                self._said[field] = [value]
            elif isinstance(value, str):
                self._said.setdefault(field, []).append(value)

    def _add_calls(self, pieces: list[dict[str, Any]]) -> None:
        """Add pieces of tool calls: the first piece of a call has its name, and each has the call's
        index.
        """
        for piece in pieces:
            said, place = piece.get("function") or {}, piece.get("index", 0)
            if place >= len(self._calls):
                self._calls.append(({**piece, "name": said.get("name", "")}, []))
                place = len(self._calls) - 1
            self._calls[place][1].append(said.get("arguments") or "")

    def whole(self, index: int) -> dict[str, Any]:
        """Return all of it, with the fields in llama-server's order."""
        logprobs = None if self._logprobs is None else {"content": self._logprobs}
        if self._text is not None:
            text, reason = "".join(self._text), self._reason
            return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}
        message: dict[str, Any] = {field: "".join(parts) for field, parts in self._said.items()}
        if self._calls:
            message["tool_calls"] = [
                {
                    "type": call.get("type", "function"),
                    "function": {"name": call["name"], "arguments": "".join(arguments)},
                    "id": call.get("id", ""),
                }
                for call, arguments in self._calls
            ]
        choice = {"finish_reason": self._reason, "index": index, "message": message}
        return choice if logprobs is None else {**choice, "logprobs": logprobs}


class Completions(_Events):
    """llama.cpp's own completions. ``fields``: those that the client wants of each, if not all."""

    __slots__ = ("_fields", "_pieces", "_whole")

    def __init__(self, each: int, fields: Sequence[str] = ()) -> None:
        super().__init__(each)
        self._fields = fields
        self._pieces: dict[int, tuple[list[str], list[Any]]] = {}  # texts, probabilities
        self._whole: dict[int, dict[str, Any]] = {}

    @property
    def complete(self) -> bool:
        """Whether each answer that began has come to its end."""
        return bool(self._whole) and self._pieces.keys() <= self._whole.keys()

    def answer(self) -> Any:
        """Return the whole answer: a list, if there are several."""
        answers = [self._one(index) for index in sorted(self._whole)]
        return answers[0] if len(answers) == 1 else answers

    def _take(self, event: dict[str, Any]) -> None:
        index = event.get("index", 0)
        texts, probabilities = self._pieces.setdefault(index, ([], []))
        texts.append(event.get("content") or "")
        probabilities += event.get("completion_probabilities") or ()
        if event.get("stop") is True:
            self._whole[index] = event

    def _one(self, index: int) -> dict[str, Any]:
        texts, probabilities = self._pieces[index]
        answer = {**self._whole[index], "content": "".join(texts), "tokens": []}
        if isinstance(settings := answer.get("generation_settings"), dict):
            answer["generation_settings"] = {**settings, "stream": False}
        if probabilities:
            answer["completion_probabilities"] = probabilities
        return _chosen(answer, self._fields) if self._fields else answer


def _chosen(answer: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return the chosen fields as llama-server does: by paths with slashes, without missing
    ones.
    """
    chosen = {}
    for path in fields:
        held: Any = answer
        for name in path.split("/"):
            if not isinstance(held, dict) or name not in held:
                break
            held = held[name]
        else:
            chosen[path] = held
    return chosen


def status_of(error: dict[str, Any]) -> int:
    """Return the status that an answer would have had which says ``error``."""
    code = error.get("code")
    return code if type(code) is int and 400 <= code < 600 else 500
