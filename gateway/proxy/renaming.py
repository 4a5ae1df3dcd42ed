"""Puts our name for a model into the answers of a remote server that calls it otherwise. Pure.

The name may be a path there, and clients compare it with what they asked for. Nothing else of an
answer is touched: what is not parsed can't come out of the parser as another number.

A text within JSON has no quotation mark that isn't escaped, so ``"model":`` is a key wherever it
stands; not always that of the answer, though: a tool's input may have one, too.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from gateway.proxy.body import exact

_TEXT = rb'"(?:[^"\\]|\\.)*+"'
_MODEL = re.compile(rb'(?<!\\)("model"\s*+:\s*+)(%b)' % _TEXT, re.DOTALL)
_KEY = b'"model"'
_LONGEST_LINE = 2**20  # bytes of a line that are kept until it ends
_LONGEST_NAME = 4096  # bytes of a name with its key, or of a key


def renamed(answer: bytes, parsed: Any, model: str) -> bytes:
    """Return a complete answer (as sent, and parsed) with ``model`` as its model, if
    it names one.
    """
    was = parsed.get("model") if isinstance(parsed, dict) else None
    if not isinstance(was, str) or was == model:
        return answer
    found = [match.span(2) for match in _MODEL.finditer(answer)]
    if len(found) != 1:
        return RenamingInJson(model).feed(answer)
    start, end = found[0]
    return b"".join((answer[:start], orjson.dumps(model), answer[end:]))


class RenamingInEvents:
    """Renames the model in a stream of Server-Sent Events: give it each piece, and send what it
    returns.

    Lines go on when they are complete. ``once``: only the first event that names a model is that
    of the answer (Anthropic's ``message_start``), and others may have such a key of their own.
    """

    __slots__ = ("_known", "_model", "_once", "_ours", "_over", "_rest")

    def __init__(self, model: str, *, once: bool = False) -> None:
        self._model = exact(orjson.dumps(model))
        self._once = once
        self._over = False
        #: The last key and name as they came, and as they were sent: nearly every event has the
        #: same.
        self._known, self._ours = b"-nothing known-", b""
        self._rest = b""  # of a line that isn't complete

    def feed(self, data: bytes) -> bytes:
        """Return the lines that are complete with ``data``, renamed; maybe none."""
        if self._over:
            return data
        if self._rest or data[-1:] != b"\n":
            data = self._lines(self._rest + data)
        before, known, after = data.partition(self._known)
        if before.find(_KEY) < 0 and after.find(_KEY) < 0:  # see gateway.proxy.body
            return before + self._ours + after if known else data
        return self._learn(data)

    def rest(self) -> bytes:
        """Return what is left when the stream has come to its end without the end of a line."""
        rest, self._rest = self._rest, b""
        return self.feed(rest + b"\n")[:-1] if rest else b""

    def _lines(self, data: bytes) -> bytes:
        end = data.rfind(b"\n") + 1
        if len(data) - end > _LONGEST_LINE:
            # All but what may be the beginning of a name.
            end = len(data) - _LONGEST_NAME
            begun = data.find(_KEY[:-1], end - _LONGEST_NAME)
            end = begun if 0 <= begun < end else end
        self._rest = data[end:]
        return data[:end]

    def _learn(self, data: bytes) -> bytes:
        found = _MODEL.search(data)
        if found is None:
            return data
        self._known, self._ours = found[0], found[1] + self._model
        if not self._once:
            return _MODEL.sub(lambda match: match[1] + self._model, data)
        self._over = True
        rest, self._rest = self._rest, b""
        return b"".join((data[: found.start()], self._ours, data[found.end() :], rest))


class RenamingInJson:
    """Renames the model in one JSON object that is too long to be kept: only its own ``model``."""

    __slots__ = (
        "_depth",
        "_in_text",
        "_is_key",
        "_is_model",
        "_model",
        "_object",
        "_over",
        "_rest",
    )

    def __init__(self, model: str) -> None:
        self._model = exact(orjson.dumps(model))
        self._rest = b""
        self._depth = 0
        self._object = self._over = False
        self._in_text = False  # of which nothing is wanted
        self._is_key = self._is_model = False  # what the next text is, of those of the object

    def feed(self, data: bytes) -> bytes:
        """Return all of ``data`` but for what may be a part of the name."""
        data, self._rest = self._rest + data, b""
        done: list[bytes] = []
        start = at = 0
        while not self._over:
            if self._in_text:
                end = _REST_OF_TEXT.match(data, at)
                assert end is not None  # it matches nothing at all, too
                at = end.end()
                if end[1] is None:
                    self._rest = data[at:]  # half of an escape
                    break
                self._in_text = False
            mark = (_OUTER if self._depth == 1 else _INNER).search(data, at)
            if mark is None:
                at = len(data)
                break
            at = mark.end()
            if mark[0] != b'"':
                self._count(mark[0])
            elif self._depth == 1 and self._object and (self._is_key or self._is_model):
                text = _WHOLE_TEXT.match(data, mark.start())
                if text is None:
                    if len(data) - at > _LONGEST_NAME:
                        self._in_text, self._is_key, self._is_model = True, False, False
                        continue
                    at = mark.start()
                    self._rest = data[at:]
                    break
                at = text.end()
                if self._is_key:
                    self._is_key, self._is_model = False, text[0] == _KEY
                else:
                    done += (data[start : mark.start()], self._model)
                    start = at
                    self._over = True
            else:
                self._in_text = True
        done.append(data[start:] if self._over else data[start:at])
        return b"".join(done)

    def rest(self) -> bytes:
        """Return what is left when the answer has come to its end, as it shouldn't have."""
        rest, self._rest = self._rest, b""
        return rest

    def _count(self, mark: bytes) -> None:
        if mark in (b"{", b"["):
            if not self._depth:
                self._object = self._is_key = mark == b"{"
            else:
                self._is_model = False
            self._depth += 1
        elif mark in (b"}", b"]"):
            self._depth -= 1
        elif mark == b",":
            self._is_key, self._is_model = True, False


def named_anew(answer: bytes, model: str) -> tuple[None, bytes]:
    """Return a complete answer with ``model`` as its model, as :mod:`gateway.workers`
    has it done.
    """
    renaming = RenamingInJson(model)
    return None, renaming.feed(answer) + renaming.rest()


_REST_OF_TEXT = re.compile(rb'(?:[^"\\]|\\.)*+(")?', re.DOTALL)
_WHOLE_TEXT = re.compile(_TEXT, re.DOTALL)
_INNER = re.compile(rb'[][{}"]')
_OUTER = re.compile(rb'[][{}",]')
