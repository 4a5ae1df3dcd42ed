"""Embeddings of OpenAI's in the shape of Ollama's, piece by piece, as they may be long. Pure."""

from __future__ import annotations

import math
import re
from typing import Final

import orjson

from gateway.ollama.answers import Clock
from gateway.proxy.body import serialise

_VECTOR: Final = re.compile(rb'"embedding"\s*+:\s*+(\[[^\]]*+\])')
_BEGINS: Final = b'"embedding"'
_TOKENS: Final = re.compile(rb'"prompt_tokens"\s*+:\s*+(\d++)')
#: Bytes of one vector.
_LONGEST: Final = 2 * 2**20
_NS: Final = 1_000_000_000


class Vectors:
    """A filter that an answer of /v1/embeddings goes through: a
    :class:`gateway.proxy.telling.Flow`.

    ``dimensions``: so many of each vector, 0: all. ``alone``: in the shape of /api/embeddings,
    which has only one.
    """

    def __init__(
        self, model: str, clock: Clock, dimensions: int = 0, *, alone: bool = False
    ) -> None:
        self._model = model
        self._clock = clock
        self._dimensions = dimensions
        self._alone = alone
        self._rest = b""
        self._tokens = 0
        self._count = 0

    def feed(self, data: bytes) -> bytes:
        """Return what goes on to the client; maybe nothing."""
        text, at = self._rest + data, 0
        made = []
        for found in _VECTOR.finditer(text):
            at = found.end()
            if self._alone and self._count:
                continue
            made.append(self._before())
            made.append(self._cut(found[1]))
            self._count += 1
        self._read(text)
        begun = text.find(_BEGINS, at)
        if begun < 0:
            begun = max(at, len(text) - len(_BEGINS) - 32)
        self._rest = text[begun:] if len(text) - begun <= _LONGEST else b""
        return b"".join(made)

    def rest(self) -> bytes:
        """Return what is left at the end."""
        self._rest = b""
        if self._alone:
            return b"}" if self._count else b'{"embedding":[]}'
        clock = self._clock
        numbers = {
            "total_duration": clock.total(),
            "load_duration": round(clock.loading() * _NS),
            "prompt_eval_count": self._tokens,
        }
        begin = b"" if self._count else self._before()
        return b"%b],%b" % (begin, serialise(numbers)[1:])

    def whole(self, body: bytes, _parsed: object) -> bytes:
        """Return a complete answer in the other shape."""
        return self.feed(body) + self.rest()

    def _before(self) -> bytes:
        if self._alone:
            return b'{"embedding":'
        if self._count:
            return b","
        return b'{"model":%b,"embeddings":[' % orjson.dumps(self._model)

    def _cut(self, vector: bytes) -> bytes:
        if not self._dimensions:
            return vector
        numbers = orjson.loads(vector)[: self._dimensions]
        norm = max(math.sqrt(math.fsum(number * number for number in numbers)), 1e-12)
        return orjson.dumps([number / norm for number in numbers])

    def _read(self, text: bytes) -> None:
        if found := _TOKENS.search(text):
            self._tokens = int(found[1])
