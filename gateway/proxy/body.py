"""Parses and serialises JSON request bodies without changing a number. Pure.

orjson reads and writes a body in a few microseconds, but turns integers over 64 bits into
floats. A body that may hold one (a long run of digits anywhere) takes the slow, exact way of the
standard library, which is given nothing deeper than :data:`MAX_DEPTH`. NaN, Infinity and numbers
like 1e400 are not JSON and are refused. So is a key given twice in one object, of which two
parsers might see two different values: what has been looked at here may therefore be sent on as
it came. What holds more values than are allowed is refused before anything parses it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import orjson

from gateway.errors import BadRequest
from gateway.nesting import MAX_DEPTH, holds_more, nests_deeper
from gateway.problems import reject_duplicates
from gateway.proxy.fields import Place, take_out

JsonObject = dict[str, Any]

#: The default limit of values in one body (:func:`gateway.nesting.holds_more`).
MAX_VALUES = 2**20
#: Maps all digits to one, so that a plain search finds a long number, at a tenth of the cost of
#: ``\d{19}``.
_ONE_DIGIT = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19
_ESCAPED_COLON = re.compile(rb"\\u003[aA]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class NotJson(BadRequest):
    """400: the body is not a JSON object, or not one that is accepted here."""


def parse_object(raw: bytes, most: int = MAX_VALUES) -> JsonObject:
    """Return the JSON object in ``raw``, which may hold ``most`` values.

    Raises :class:`NotJson` with what is wrong and where.
    """
    if not raw:
        raise NotJson("the request has no body: a JSON object is needed")
    if holds_more(raw, most):
        _refuse_deep(raw)
        raise NotJson(
            f"the body holds more than {most} values (limits.request.values)",
            code="too_many_values",
        )
    try:
        if _has_long_number(raw):
            _refuse_deep(raw)
            body = _parse_exactly(raw)
        else:
            body = orjson.loads(raw)
        # What orjson could write again has at most 254 levels: it needs no counting.
        if not _has_each_key_once(raw, body):
            _refuse_deep(raw)
            json.loads(raw.decode("utf-8"), object_pairs_hook=reject_duplicates)
    except ValueError as error:
        if isinstance(error, orjson.JSONDecodeError):  # it stops at 1,024 levels
            _refuse_deep(error.doc[: error.pos + 1].encode())
        raise NotJson(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise NotJson("the body must be a JSON object")
    return body


def _refuse_deep(raw: bytes) -> None:
    if nests_deeper(raw):
        raise NotJson(
            f"the body is nested too deeply: at most {MAX_DEPTH} levels are taken",
            code="invalid_json",
        )


# In what follows `find`, not `in`: for bytes CPython 3.11 makes an exception first, and throws it
# away (it looks whether what is searched for is a number), at ten times the cost.


def _has_long_number(raw: bytes) -> bool:
    return raw.translate(_ONE_DIGIT).find(_LONG_NUMBER) >= 0


def _has_each_key_once(raw: bytes, parsed: Any) -> bool:
    """Return whether no object in ``raw`` has a key twice; False if that can't be told so cheaply.

    Each key has a colon behind it, and a key that was given twice has one less when it is written
    again. Colons within texts are the same in both, unless one came as an escape.
    """
    try:
        written = orjson.dumps(parsed)
    except TypeError:  # see serialise()
        return False
    return written == raw or (
        raw.count(b":") == written.count(b":")
        and (raw.find(b"\\u003") < 0 or _ESCAPED_COLON.search(raw) is None)
    )


def exact(data: bytes) -> bytes:
    """Return ``data`` in memory of its exact size, for output of orjson that is kept.

    orjson gives bytes in the buffer that it wrote them to, of 4 KB at least, and many times their
    size where there is a long text.
    """
    return bytes(memoryview(data))


def serialise(body: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """Return ``body`` as JSON, with the order of keys and unknown fields as they came. It may be
    kept.
    """
    try:
        return exact(orjson.dumps(body))
    except TypeError:  # an integer over 64 bits, or deeper than 254 levels
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _parse_exactly(raw: bytes) -> Any:
    parsed = json.loads(raw.decode("utf-8"), parse_float=_finite, parse_constant=_refuse)
    if _SURROGATE.search(raw):
        # Half of a character is no text: orjson refuses it, json doesn't.
        json.dumps(parsed, ensure_ascii=False).encode()
    return parsed


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def with_responses(answer: bytes, parsed: Any) -> bytes:
    """Return a chat completion with ``responses``, the text of its first choice, added at its end.

    Clients of the old system read that field. All other bytes stay as llama-server sent them; so
    does an answer that is no chat completion.
    """
    try:
        text = parsed["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        return answer
    end = answer.rindex(b"}")
    return b"".join((answer[:end], b',"responses":', orjson.dumps(text or ""), answer[end:]))


def shape(body: JsonObject, strip: Iterable[Place], fixed: Mapping[str, Any]) -> None:
    """Take the fields ``strip`` out of ``body``, and merge ``fixed`` over it.

    For the shaping of a model, see :func:`gateway.proxy.fields.shapings`.

    An object is merged into an object, so that one ``chat_template_kwargs`` can be set and the
    client's others stay; anything else replaces what the client sent.
    """
    for place in strip:
        take_out(body, place)
    _merge(body, fixed)


def _merge(into: JsonObject, fixed: Mapping[str, Any]) -> None:
    for key, value in fixed.items():
        present = into.get(key)
        if isinstance(value, Mapping):
            into[key] = merged = dict(present) if isinstance(present, dict) else {}
            _merge(merged, value)
        else:
            into[key] = value


def json_type(value: object) -> str:
    """Return what kind of JSON value ``value`` is, for error messages."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
