"""Reads how many tokens answers took that don't tell it in the usual place, or not for all. Pure.

A client of llama.cpp's own completions may choose the fields of the answer (``response_fields``):
llama-server is asked for its timings as well, and they are removed again. A stream of several
answers tells the numbers of each in that answer's last event; in a long answer, of which nothing is
kept, the numbers stand somewhere.

In all of them ``"timings":`` and ``"usage":`` with these quotation marks are keys: within a text
of JSON the marks would be escaped.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import orjson

from gateway.proxy.sse import TELLING, Usage, add_up, last_told, told_by, usage_of

_TIMINGS = "timings"
#: The timings that the gateway asked for, with the comma before them. They hold numbers only.
_ADDED_TIMINGS = re.compile(rb',?"timings":\{[^{}]*+\}')
_BEGINS = b',"timings":{'
_MOST = 2**31  # what llama-server can read
_TOKEN = b'"top_logprobs":'  # a key that each listed token has
_LONGEST = 1024  # bytes of such an object
#: Bytes of an event that are kept until it ends. llama.cpp's last one repeats the prompt.
_LONGEST_EVENT = 2**20


def ask_for_timings(body: dict[str, Any]) -> bool:
    """Add llama-server's numbers to the ``response_fields`` of ``body``, if they lack."""
    fields = chosen_fields(body)
    if not fields or _TIMINGS in fields:
        return False
    body["response_fields"] = [*fields, _TIMINGS]
    return True


def chosen_fields(body: dict[str, Any]) -> list[str]:
    """Return what ``body`` wants to have in the answer of llama.cpp's own completions; empty: all.

    Anything but texts in that list makes llama-server give the whole answer.
    """
    fields = body.get("response_fields")
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
        return []
    return fields


def answers_to_each(body: dict[str, Any]) -> int:
    """Return how many answers to each prompt ``body`` asks for, as llama-server understands it."""
    wanted = body.get("n_cmpl")
    wanted = body.get("n") if wanted is None else wanted
    return int(wanted) if isinstance(wanted, int | float) and 1 <= wanted <= _MOST else 1


def without_timings(answer: bytes) -> bytes:
    """Return a complete ``answer`` without what :func:`ask_for_timings` has asked for."""
    return _ADDED_TIMINGS.sub(b"", answer)


class Flow(Protocol):
    """A filter that an answer goes through: give it each piece, send on what it returns."""

    def feed(self, data: bytes, /) -> bytes: ...

    def rest(self) -> bytes: ...


class Teller(Flow, Protocol):
    """A reader of an answer that passes through it."""

    size: int  # bytes that came

    def usage(self) -> Usage | None: ...


class _Without:
    """A filter that removes the added timings from an answer that comes in pieces."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        data = _ADDED_TIMINGS.sub(b"", self._held + data)
        begun = data.rfind(_BEGINS[1:])
        if begun >= 0:
            begun -= data[begun - 1 : begun] == b","
        else:
            ends = (size for size in range(len(_BEGINS), 0, -1) if data.endswith(_BEGINS[:size]))
            begun = len(data) - next(ends, 0)
        self._held = data[begun:]
        return data[:begun]

    def rest(self) -> bytes:
        held, self._held = self._held, b""
        return held


class TellingInEvents:
    """Reads the numbers of each of ``answers`` to each prompt from a stream of events.

    ``strip``: only the gateway asked for them, so they are removed.
    """

    __slots__ = ("_all", "_line", "_without", "size")

    def __init__(self, answers: int, *, strip: bool) -> None:
        self.size = 0
        self._all = ToldAnswers(answers)
        self._line = b""
        self._without = _Without() if strip else None

    def feed(self, data: bytes) -> bytes:
        """Return what goes on to the client; maybe nothing."""
        self.size += len(data)
        *lines, rest = (self._line + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                self._read_line(line)
        self._line = rest[:6] + rest[-_LONGEST_EVENT:] if len(rest) > 2 * _LONGEST_EVENT else rest
        return data if self._without is None else self._without.feed(data)

    def rest(self) -> bytes:
        """Return what is left when the stream has come to its end in the middle of an event."""
        return b"" if self._without is None else self._without.rest()

    def usage(self) -> Usage | None:
        """Return that of all answers."""
        return self._all.usage()

    def _read_line(self, line: bytes) -> None:
        # `find`, not `in`: see gateway.proxy.body.
        if (
            line.find(b'"timings":') < 0
            and line.find(b'"usage":') < 0
            and line.find(b'"finish_reason":"') < 0
            and line.find(b'"tokens_evaluated":') < 0
        ):
            return
        try:
            event = orjson.loads(line[6:])
        except ValueError:  # too long to be kept, or of another server
            event = {"stop": True, **last_told(line)}
        if isinstance(event, dict):
            self._all.take(event)


class ToldAnswers:
    """The numbers of several answers to one request, ``each`` of them for one prompt."""

    __slots__ = ("_each", "_ended", "_running")

    def __init__(self, each: int) -> None:
        self._each = each
        self._ended: list[Usage] = []
        self._running: dict[Any, Usage] = {}  # by the answer's index, of those that tell early

    def take(self, event: dict[str, Any]) -> None:
        """Take over the numbers of an event of llama-server."""
        index, choices = event.get("index"), event.get("choices")
        if isinstance(choices, list):
            last = not choices  # the numbers of one that has ended, in an event of their own
            if choices and isinstance(choice := choices[0], dict):
                index, last = choice.get("index"), choice.get("finish_reason") is not None
        elif "type" in event:  # of Responses
            last = "response" in event
        else:  # of llama.cpp's own: only the last may lack this, where the client chose so
            last = event.get("stop") is not False
        usage = usage_of(event)
        if last:
            if index not in self._running and usage is not None and choices is None:
                index = self._likely(usage)
            self._running.pop(index, None)
            if usage is not None:
                self._ended.append(usage)
        elif usage is not None:
            self._running[index] = usage

    def _likely(self, ended: Usage) -> object:
        """Return the index of an answer that has ended without saying which it is."""
        running, tokens = self._running, ended.completion_tokens
        return min(
            running, key=lambda index: abs(running[index].completion_tokens - tokens), default=None
        )

    def usage(self) -> Usage | None:
        """Return the usage of all answers that have told it so far."""
        return add_up([*self._ended, *self._running.values()], self._each)


class TellingInJson:
    """Reads the numbers from a long JSON answer. ``several``: of as many answers as it tells
    about.
    """

    __slots__ = ("_answers", "_end", "_rest", "_several", "_tokens", "_told", "_without", "size")

    def __init__(self, answers: int, *, several: bool, strip: bool) -> None:
        self._answers = answers
        self._several = several
        self._told: list[Usage] = []
        self._rest = b""
        self._end, self._tokens = b"", 0  # of tokens listed one by one
        self._without = _Without() if strip else None
        self.size = 0  # bytes of it

    def feed(self, data: bytes) -> bytes:
        """Return what goes on to the client; maybe nothing."""
        self.size += len(data)
        if self._several:
            ends = self._end + data
            self._tokens += ends.count(_TOKEN)
            self._end = ends[1 - len(_TOKEN) :]
        seen, at = self._rest + data, 0
        for found in TELLING.finditer(seen) if self._may_tell(seen) else ():
            at = found.end()
            if (usage := usage_of(told_by(found))) is not None:
                if not self._several:
                    self._told.clear()
                self._told.append(usage)
        self._rest = seen[max(at, len(seen) - _LONGEST) :]
        return data if self._without is None else self._without.feed(data)

    @staticmethod
    def _may_tell(text: bytes) -> bool:
        return text.find(b'"timings"') >= 0 or text.find(b'"usage"') >= 0

    def rest(self) -> bytes:
        """Return what is left at the end."""
        return b"" if self._without is None else self._without.rest()

    def usage(self) -> Usage | None:
        """Return the usage of all answers; with ``choices``, only the first one tells it, and
        tokens are counted.
        """
        usage = add_up(self._told, self._answers)
        if usage is None or usage.completion_tokens >= self._tokens:
            return usage
        return usage._replace(completion_tokens=self._tokens)


def teller(answers: int, *, several: bool, strip: bool, events: bool) -> Teller | None:
    """Return what reads an answer, a stream of ``events`` or JSON, for what it took.

    ``None``: it is a stream whose last event tells all. ``several``: of as many answers as there
    are, ``answers`` to each prompt. ``strip``: only the gateway asked for the numbers, so they are
    removed.
    """
    if not events:
        return TellingInJson(answers, several=several, strip=strip)
    return TellingInEvents(answers, strip=strip) if several or strip else None


class Both:
    """Two filters of an answer, one after the other."""

    __slots__ = ("_first", "_then")

    def __init__(self, first: Flow, then: Flow) -> None:
        self._first, self._then = first, then

    def feed(self, data: bytes) -> bytes:
        """Return what goes on to the client; maybe nothing."""
        data = self._first.feed(data)
        return self._then.feed(data) if data else data

    def rest(self) -> bytes:
        """Return what is left at the end."""
        rest = self._first.rest()
        return (self._then.feed(rest) if rest else b"") + self._then.rest()
