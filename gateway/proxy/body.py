"""JSON request bodies in and out, without harming a number. Pure.

orjson reads and writes a body in a few microseconds, but turns integers over 64 bits into
floats. A body that may hold one (a long run of digits anywhere) takes the slow, exact way of the
standard library. NaN, Infinity and numbers like 1e400 are not JSON and are refused.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import orjson

from gateway.errors import BadRequest

JsonObject = dict[str, Any]

_LONG_NUMBER = re.compile(rb"\d{19}")


def parse_object(raw: bytes) -> JsonObject:
    """The JSON object in ``raw``. Raises :class:`BadRequest` with what is wrong and where."""
    if not raw:
        raise BadRequest("the request has no body: a JSON object is needed")
    try:
        body = _parse_exactly(raw) if _LONG_NUMBER.search(raw) else orjson.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body


def serialise(body: JsonObject) -> bytes:
    """``body`` as JSON: key order and unknown fields as they came."""
    try:
        return orjson.dumps(body)
    except TypeError:  # an integer over 64 bits
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _parse_exactly(raw: bytes) -> Any:
    return json.loads(raw.decode("utf-8"), parse_float=_finite, parse_constant=_refuse)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def with_responses(answer: bytes, parsed: Any) -> bytes:
    """A chat completion with ``responses``, the text of its first choice, added at its end.

    Clients of the old system read that field. All other bytes stay as llama-server sent them; so
    does an answer that is no chat completion.
    """
    try:
        text = parsed["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        return answer
    end = answer.rindex(b"}")
    return b'%b,"responses":%b%b' % (answer[:end], orjson.dumps(text or ""), answer[end:])


def in_openai_shape(answer: bytes) -> bytes:
    """An error of llama-server as the OpenAI error object: its message kept, nothing invented.

    llama-server says ``{"error": {"code": 400, "message": ..., "type": ...}}``; OpenAI's
    ``code`` is a text, and ``param`` is always there. Other fields (token counts) are kept.
    """
    try:
        error = orjson.loads(answer)["error"]
    except (ValueError, LookupError, TypeError):
        text = answer.decode("utf-8", "replace").strip()[:2000]
        error = {"message": text or "llama-server gave no reason"}
    if isinstance(error, str):
        error = {"message": error}
    elif not isinstance(error, dict):
        error = {"message": str(error)}
    kind = error.get("type") or "api_error"
    code = error.get("code")
    shaped = {
        **error,
        "message": error.get("message") or "llama-server gave no reason",
        "type": kind,
        "code": code if isinstance(code, str) else kind,
        "param": error.get("param"),
    }
    return orjson.dumps({"error": shaped})
