"""The fields of Ollama's requests that say how an answer is to be made. Pure.

Ollama's documentation (docs/api.md and docs/modelfile.mdx, "Valid parameters and values") has them,
and what it does with them its ``api/types.go``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from gateway.errors import BadRequest
from gateway.proxy.body import JsonObject

_INTEGER: Final = "of type integer"
_FLOAT: Final = "of type float32"
#: Option -> llama-server's field, and its type in Ollama's words.
_FIELDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "temperature": ("temperature", _FLOAT),
        "top_k": ("top_k", _INTEGER),
        "top_p": ("top_p", _FLOAT),
        "min_p": ("min_p", _FLOAT),
        "typical_p": ("typical_p", _FLOAT),
        "seed": ("seed", _INTEGER),
        "repeat_penalty": ("repeat_penalty", _FLOAT),
        "repeat_last_n": ("repeat_last_n", _INTEGER),
        "presence_penalty": ("presence_penalty", _FLOAT),
        "frequency_penalty": ("frequency_penalty", _FLOAT),
        "mirostat": ("mirostat", _INTEGER),
        "mirostat_tau": ("mirostat_tau", _FLOAT),
        "mirostat_eta": ("mirostat_eta", _FLOAT),
        "num_keep": ("n_keep", _INTEGER),
        "num_predict": ("max_tokens", _INTEGER),
    }
)
_LEVELS: Final = ("low", "medium", "high", "max")
#: Units of Go's durations (time.ParseDuration), in seconds.
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60}
_DURATION: Final = re.compile(r"(\d++\.?\d*+|\.\d++)(ns|us|µs|μs|ms|s|m|h)")
#: Seconds that stand for "no end".
FOREVER: Final = math.inf


def sampling(options: Any) -> JsonObject:
    """Return the fields of OpenAI's and llama-server's that say what ``options`` does.

    Options about how a model is loaded (``num_ctx``, ``num_gpu``) are left out, as are unknown
    ones, which Ollama ignores, too. Raises :class:`BadRequest` for a value of another type.
    """
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise BadRequest("options must be an object", param="options")
    made: JsonObject = {}
    for name, value in options.items():
        if name == "stop":
            if (stop := _stop(value)) is not None:
                made["stop"] = stop
            continue
        if (known := _FIELDS.get(name)) is None or value is None:
            continue
        field, kind = known
        if type(value) not in (int, float):
            raise BadRequest(f'option "{name}" must be {kind}', param="options")
        made[field] = int(value) if kind is _INTEGER else value
    if made.get("max_tokens", 1) <= 0:
        del made["max_tokens"]  # -1: without end, -2: until the context is full
    return made


def _stop(value: Any) -> list[str] | None:
    if value is None or value == []:
        return None
    if isinstance(value, str):  # not as documented, but some clients send it
        return [value]
    if not isinstance(value, list):
        raise BadRequest('option "stop" must be of type array', param="options")
    if not all(isinstance(item, str) for item in value):
        raise BadRequest('option "stop" must be of an array of strings', param="options")
    return value


def output_format(asked: Any) -> JsonObject | None:
    """Return the JSON Schema that ``format`` asks for; None for any text.

    ``{}``: any JSON object. Raises :class:`BadRequest` for what is no format.
    """
    if asked is None or asked == "":
        return None
    if asked == "json":
        return {}
    if not isinstance(asked, dict):
        raise BadRequest(
            f'invalid format: {str(asked)[:100]!r}; expected "json" or a valid JSON Schema object',
            param="format",
        )
    return asked


def response_format(schema: JsonObject) -> JsonObject:
    """Return OpenAI's ``response_format`` for :func:`output_format`."""
    if not schema:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "format", "schema": schema}}


def thinking(think: Any) -> JsonObject:
    """Return the fields that make a model think, or not, as ``think`` says.

    Raises :class:`BadRequest` for what is neither a boolean nor a level.
    """
    if think is None:
        return {}
    if isinstance(think, bool):
        return {"chat_template_kwargs": {"enable_thinking": think}}
    if think not in _LEVELS:
        raise BadRequest(
            f"invalid think value: {str(think)[:100]!r} "
            '(must be "high", "medium", "low", "max", true, or false)',
            param="think",
        )
    effort = "high" if think == "max" else think
    arguments = {"enable_thinking": True, "reasoning_effort": effort}
    return {"chat_template_kwargs": arguments, "reasoning_effort": effort}


def probabilities(body: Mapping[str, Any]) -> int | None:
    """Return how many alternatives to each token are asked for; None if not even its own
    probability is.
    """
    top = body.get("top_logprobs") or 0
    if type(top) is not int or not 0 <= top <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20", param="top_logprobs")
    return top if body.get("logprobs") is True else None


def keep_alive(asked: Any) -> float | None:
    """Return how many seconds a model is to stay loaded after its answer; None: not said.

    A number is seconds, a text a duration of Go's (``5m``, ``1h30m``); whatever is negative means
    :data:`FOREVER`. Raises :class:`BadRequest` for anything else.
    """
    if asked is None:
        return None
    seconds: float | None = None
    if type(asked) in (int, float):
        seconds = float(asked)
    elif isinstance(asked, str):
        seconds = _go_duration(asked)
    if seconds is None:
        raise BadRequest(
            f"keep_alive: invalid duration {str(asked)[:50]!r}: a number of seconds, or a text "
            'like "5m"',
            param="keep_alive",
        )
    return seconds if seconds >= 0 else FOREVER


def _go_duration(text: str) -> float | None:
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    if not rest or len(rest) > 64:
        return None
    seconds, at = 0.0, 0
    while at < len(rest):
        if (found := _DURATION.match(rest, at)) is None:
            # Not Go's, but what people write: a plain number.
            return sign * float(rest) if rest.isascii() and rest.isdigit() else None
        seconds += float(found[1]) * _UNITS.get(found[2], 3600)
        at = found.end()
    return sign * seconds
