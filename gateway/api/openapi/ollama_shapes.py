"""Bodies of Ollama's routes as JSON Schema, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from gateway.api.openapi.shapes import Shape
from gateway.proxy.outgoing import LINES

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_FLAG: Final[Schema] = {"type": "boolean"}
_NAME: Final[Schema] = {
    "type": "string",
    "description": "a model of models.json, an alias, or NAME:PERSONALITY; `:latest` may follow",
}
_THINK: Final[Schema] = {"enum": [True, False, "low", "medium", "high", "max"]}
_OUTPUT: Final[Schema] = {
    "type": ["string", "object"],
    "description": "`json`, or a JSON Schema",
}
_OPTIONS: Final[Schema] = {
    "type": "object",
    "description": "temperature, top_k, top_p, min_p, seed, num_predict, stop...",
}
_KEEP: Final[Schema] = {
    "type": ["string", "number"],
    "description": "seconds, or a duration like `5m`; -1: for ever",
}
_MESSAGE: Final[Schema] = {
    "type": "object",
    "properties": {"role": _TEXT, "content": _TEXT},
    "required": ["role"],
}
_LINED: Final = ("application/json", LINES)


def _object(properties: Mapping[str, Schema], *required: str) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": list(required)}


#: The shapes of routes, by method and path.
SHAPES: Final[Mapping[str, Shape]] = MappingProxyType(
    {
        "POST /api/chat": Shape(
            body=_object(
                {
                    "model": _NAME,
                    "messages": {"type": "array", "items": _MESSAGE},
                    "stream": _FLAG,
                    "think": _THINK,
                    "format": _OUTPUT,
                    "options": _OPTIONS,
                    "keep_alive": _KEEP,
                    "tools": {"type": "array", "items": {"type": "object"}},
                },
                "model",
            ),
            answers=_LINED,
            relayed=True,
        ),
        "POST /api/generate": Shape(
            body=_object(
                {
                    "model": _NAME,
                    "prompt": _TEXT,
                    "suffix": _TEXT,
                    "system": _TEXT,
                    "images": {"type": "array", "items": _TEXT},
                    "context": {"type": "array", "items": {"type": "integer"}},
                    "raw": _FLAG,
                    "stream": _FLAG,
                    "think": _THINK,
                    "format": _OUTPUT,
                    "options": _OPTIONS,
                    "keep_alive": _KEEP,
                },
                "model",
            ),
            answers=_LINED,
            relayed=True,
        ),
        "POST /api/embed": Shape(
            body=_object(
                {
                    "model": _NAME,
                    "input": {"type": ["string", "array"], "items": _TEXT},
                    "dimensions": {"type": "integer", "minimum": 0},
                    "keep_alive": _KEEP,
                },
                "model",
            ),
            relayed=True,
        ),
        "POST /api/embeddings": Shape(
            body=_object({"model": _NAME, "prompt": _TEXT, "keep_alive": _KEEP}, "model"),
            relayed=True,
        ),
        "POST /api/pull": Shape(
            body=_object(
                {
                    "model": {"type": "string", "description": "hf.co/OWNER/REPO:QUANT"},
                    "stream": _FLAG,
                },
                "model",
            ),
            answers=_LINED,
            fails=(501,),
        ),
        "DELETE /api/delete": Shape(
            body=_object({"model": _NAME}, "model"), answers=(), fails=(409, 412, 422, 507)
        ),
        "POST /api/show": Shape(body=_object({"model": _NAME}, "model")),
    }
)
