"""Reads usage and timings from an answer, or from the last events of a stream. Never changes bytes.

llama-server puts ``timings`` into the last chunk before ``[DONE]``, and ``usage`` into one of
its own with ``stream_options.include_usage``. Looking at the tail once, at the end, costs
nothing per chunk. Of other shapes of answers see :mod:`gateway.proxy.telling`.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from gateway.proxy.body import serialise

_KEPT = 3  # pieces of the stream; usage, timings and [DONE] come in the last three events
_KEPT_OF_LONG = 16  # where the last event may be long, and come in many reads
_MAX_TAIL = 64 * 1024
#: The ends of an event: a blank line (WHATWG HTML, 9.2.5).
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
_NUMBERS = (int, float)
#: The last event of a stream of OpenAI's, of Anthropic's, or of Responses.
_LAST = re.compile(
    rb"""(data:\ ?\[DONE\] | event:\ ?(message_stop|response\.(completed|incomplete|failed))\r?\n
    data:[^\r\n]*)\r?\n\r?\n\Z""",
    re.VERBOSE,
)
#: An object with usage or timings, at most one level deep. Within a JSON text its quotation marks
#: would be escaped.
TELLING = re.compile(rb'(?<!\\)"(timings|usage)"\s*+:\s*+(\{(?:[^{}]++|\{[^{}]*+\})*+\})')
#: What a line of a stream holds if it may have usage or timings.
_TELLS = (b'"timings"', b'"usage"', b'"tokens_evaluated"')
#: The most tokens that are believed. Sums go into a database, so greater and negative numbers are
#: ignored.
_MOST = 2**40


class Usage(NamedTuple):
    """The tokens of one answer, and how fast they came (tokens per second), where it said so."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    tokens_per_second: float | None = None


class Tail:
    """The last pieces of a stream: call :meth:`feed` for each.

    ``framed``: each piece is one whole chunk (RFC 9112, 7.1), with its size and line ends.
    """

    __slots__ = ("_pieces", "feed", "framed")

    def __init__(self, kept: int = _KEPT) -> None:
        self._pieces: deque[bytes] = deque(maxlen=kept)
        self.feed = self._pieces.append  # one C call a chunk
        self.framed = False

    @property
    def latest(self) -> bytes | None:
        """The last piece that was fed."""
        return self._pieces[-1] if self._pieces else None

    @property
    def complete(self) -> bool:
        """Whether the last event of the stream was fed."""
        return _LAST.search(self._joined(self._pieces)) is not None

    def half(self) -> bytes | None:
        """Return what was fed of an event that isn't complete; None where the beginning is not
        kept.
        """
        text = self._joined(self._pieces)
        ends = [found + len(end) for end in _EVENT_ENDS if (found := text.rfind(end)) >= 0]
        if not ends and len(self._pieces) == self._pieces.maxlen:
            return None
        return text[max(ends, default=0) :]

    def usage(self) -> Usage | None:
        """Return the usage from what was fed, or ``None`` if the stream told none."""
        return self._usage_at_end()

    def _usage_at_end(self) -> Usage | None:
        tail = self._joined(self._pieces)[-_MAX_TAIL:]
        for line in reversed(tail.split(b"\n")):
            if line.startswith(b"data: {") and any(tells in line for tells in _TELLS):
                try:
                    event = orjson.loads(line[6:])
                except ValueError:
                    continue  # it is of several lines
                if (usage := usage_of(event)) is not None:
                    return usage
        # The last event is longer than the tail: llama.cpp's own repeats the whole prompt.
        return usage_of(last_told(tail))

    def _joined(self, pieces: Iterable[bytes]) -> bytes:
        if self.framed:
            pieces = (piece[piece.find(b"\n") + 1 : -2] for piece in pieces)
        return b"".join(pieces)


class ResponsesTail(Tail):
    """A tail of OpenAI's Responses, whose last event holds the whole answer again."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_KEPT_OF_LONG)


class AnthropicTail(Tail):
    """A tail of Anthropic's events, of which the first one tells the prompt's tokens.

    ``message_start`` has ``input_tokens``, ``message_delta`` near the end ``output_tokens``.
    """

    __slots__ = ("_first", "_first_size")

    def __init__(self) -> None:
        super().__init__()
        self._first: list[bytes] = []  # up to the end of the first event
        self._first_size = 0
        self.feed = self._feed_first

    def _feed_first(self, piece: bytes) -> None:
        self._pieces.append(piece)
        if self._first_size < _MAX_TAIL:
            self._first.append(piece)
            ended = piece.find(b"\n\n") >= 0
            self._first_size = _MAX_TAIL if ended else self._first_size + len(piece)

    def usage(self) -> Usage | None:
        end, start = self._usage_at_end(), None
        for line in self._joined(self._first).split(b"\n"):
            if line.startswith(b"data: {"):
                with contextlib.suppress(ValueError, AttributeError):
                    start = usage_of(orjson.loads(line[6:]).get("message"))
                break
        if end is None or start is None:
            return end or start
        return end._replace(prompt_tokens=start.prompt_tokens, cached_tokens=start.cached_tokens)


def usage_of(answer: Any, each: int = 1) -> Usage | None:
    """Return the usage of a parsed answer or stream event: OpenAI's ``usage``, else ``timings``.

    Also Anthropic's, that of OpenAI's Responses, whose last event holds the whole response, and the
    counters in llama.cpp's own events. Of several answers, ``each`` so many to one prompt, it is
    that of all, where they are a list; where a llama-server elsewhere gives them as ``choices``, it
    tells the numbers of the first, and the tokens of the others are guessed.
    """
    if not isinstance(answer, dict):
        return add_up(map(usage_of, answer), each) if isinstance(answer, list) else None
    usage, timings = answer.get("usage"), answer.get("timings")
    if usage is None and isinstance(response := answer.get("response"), dict):
        usage = response.get("usage")
    speed = _number(timings, "predicted_per_second") if isinstance(timings, dict) else None
    if isinstance(usage, dict):
        cached = _count(usage, "cache_read_input_tokens")
        prompt = (_count(usage, "prompt_tokens") or _count(usage, "input_tokens")) + cached
        completion = _count(usage, "completion_tokens") or _count(usage, "output_tokens")
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        if isinstance(details, dict):
            cached = _count(details, "cached_tokens")
        choices = answer.get("choices")
        if speed is not None and isinstance(choices, list) and len(choices) > 1:
            completion += _of_others(choices, completion)
        return Usage(prompt, completion, cached, speed)
    if isinstance(timings, dict):
        cached = _count(timings, "cache_n")
        prompt = cached + _count(timings, "prompt_n")
        return Usage(prompt, _count(timings, "predicted_n"), cached, speed)
    if "tokens_evaluated" in answer and "tokens_predicted" in answer:
        return Usage(_count(answer, "tokens_evaluated"), _count(answer, "tokens_predicted"))
    return None


def last_told(text: bytes) -> dict[str, Any]:
    """Return what tells in ``text``, a part of an answer: the last ``usage`` or ``timings``, by its
    name.

    The last one is right. Of what keys an answer has its client can choose nothing but those of the
    input of a tool in Anthropic's messages, and behind that comes the true ``usage``.
    """
    told: dict[str, Any] = {}
    for found in TELLING.finditer(text):
        told = told_by(found)
    return told


def told_by(found: re.Match[bytes]) -> dict[str, Any]:
    """Return what a match of :data:`TELLING` holds, by its name."""
    try:
        return {found[1].decode(): orjson.loads(found[2])}
    except ValueError:
        return {}


def add_up(usages: Iterable[Usage | None], each: int = 1) -> Usage | None:
    """Return those of several answers, ``each`` so many to one prompt, which each of them tells
    again.
    """
    told = [usage for usage in usages if usage is not None]
    if not told:
        return None
    prompt, completion, cached = (sum(counts) for counts in list(zip(*told, strict=True))[:3])
    share = max(1, min(each, len(told)))
    return Usage(-(-prompt // share), completion, -(-cached // share), told[0].tokens_per_second)


def _of_others(choices: list[Any], completion: int) -> int:
    """Return the tokens of all ``choices`` but the first, which has ``completion``.

    If each token is listed (``logprobs``), they are counted, except those of a stop sequence, which
    aren't listed; otherwise they are estimated by their size.
    """
    told = [_tokens(choice) for choice in choices]
    if told[0] and all(told):
        return sum(told[1:]) + max(0, completion - told[0]) * (len(told) - 1)
    first, *others = map(_size, choices)
    return -(-sum(others) * completion // first) if first else sum(others)


def _tokens(choice: Any) -> int:
    """Return how many tokens one of several choices tells of."""
    said = choice.get("logprobs") if isinstance(choice, dict) else None
    content = said.get("content") if isinstance(said, dict) else None
    return len(content) if isinstance(content, list) else 0


def _size(choice: Any) -> int:
    """Return bytes of what one of several choices says."""
    if not isinstance(choice, dict):
        return 0
    said = [choice.get("text")]
    if isinstance(message := choice.get("message"), dict):
        said = [message.get(part) for part in ("content", "reasoning_content", "tool_calls")]
    return sum(len(serialise(part)) for part in said if part)


def _count(data: dict[str, Any], key: str) -> int:
    count: Any = data.get(key, 0)
    if type(count) not in _NUMBERS:  # not `isinstance`: a bool is an int
        return 0
    return int(count) if 0 <= count <= _MOST else 0


def _number(data: dict[str, Any], key: str) -> float | None:
    value = data.get(key)
    return value if type(value) in _NUMBERS else None  # not `isinstance`: a bool is an int
