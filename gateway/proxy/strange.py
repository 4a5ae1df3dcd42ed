"""Finds unusual traits of a request, which may have ended a llama-server. Pure.

One table for all dialects: a name of a field, wherever each API has it, and from how many bytes on,
as JSON, it is strange. Plain words with plain settings are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

_STRANGE: Final[Mapping[str, int]] = MappingProxyType(
    {
        "grammar": 1,
        "grammar_lazy": 1,
        "grammar_triggers": 1,
        "json_schema": 1,
        "response_format": 1,
        "format": 1,  # in `text` (Responses) and `output_config` (Messages)
        "schema": 1,
        "tools": 2048,
        "functions": 2048,
        "chat_template_kwargs": 1024,
        "logit_bias": 1024,
        "stop": 1024,
        "stop_sequences": 1024,
        "samplers": 1,
        "n_probs": 1,
        "top_logprobs": 1,
        "logprobs": 1,
        "repeat_last_n": 1,
        "dry_penalty_last_n": 1,
        "dry_multiplier": 1,
        "dry_sequence_breakers": 1,
        "mirostat": 1,
        "lora": 1,
        "speculative.n_max": 1,
        "image_data": 1,
        "multimodal_data": 1,
        "image_url": 1,
        "input_image": 1,
        "input_audio": 1,
        "id_slot": 1,
        "n_keep": 1,
        "n_discard": 1,
        "n_indent": 1,
        "input_extra": 1024,
    }
)
#: Kinds of content parts that are media.
_MEDIA: Final = frozenset(("image", "image_url", "input_image", "input_audio", "audio", "video"))
#: Objects of a request that hold settings.
_INSIDE: Final = ("text", "output_config", "params", "response_fields")
_PLAIN: Final[tuple[object, ...]] = (None, False, 0, "", [], {}, "text", {"type": "text"})


def trait(body: object) -> str | None:
    """Return the strange field of a request, if it has one. What cannot be read is strange as a
    whole.
    """
    if not isinstance(body, bytes):
        return "body"
    try:
        parsed = orjson.loads(body)
    except ValueError:
        return "body"
    if not isinstance(parsed, dict):
        return "body"
    return next(_traits(parsed), None)


def _traits(body: Mapping[str, Any]) -> Iterator[str]:
    for place in (body, *(body.get(name) for name in _INSIDE)):
        if isinstance(place, dict):
            for name in place.keys() & _STRANGE.keys():
                value, size = place[name], _STRANGE[name]
                if value not in _PLAIN and (size == 1 or len(orjson.dumps(value)) >= size):
                    yield name
    for name in ("messages", "input", "prompt", "content"):
        if (kind := _media(body.get(name), 0)) is not None:
            yield kind


def _media(value: object, depth: int) -> str | None:
    if depth > 4:
        return None
    if isinstance(value, dict):
        if (kind := value.get("type")) in _MEDIA:
            return str(kind)
        if "multimodal_data" in value:
            return "multimodal_data"
        value = value.get("content")
        return _media(value, depth + 1) if isinstance(value, list | dict) else None
    if isinstance(value, list):
        found = (_media(item, depth + 1) for item in value if isinstance(item, dict | list))
        return next((kind for kind in found if kind is not None), None)
    return None
