"""Bodies of Ollama's routes as JSON Schema, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.api.openapi.shapes import FLAG, TEXT, Schema, Shape, object_schema
from gateway.streams.kinds import LINES

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
    "properties": {"role": TEXT, "content": TEXT},
    "required": ["role"],
}
_LINED: Final = ("application/json", LINES)


#: The shapes of routes, by method and path.
SHAPES: Final[Mapping[str, Shape]] = MappingProxyType(
    {
        "POST /api/chat": Shape(
            body=object_schema(
                {
                    "model": _NAME,
                    "messages": {"type": "array", "items": _MESSAGE},
                    "stream": FLAG,
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
            body=object_schema(
                {
                    "model": _NAME,
                    "prompt": TEXT,
                    "suffix": TEXT,
                    "system": TEXT,
                    "images": {"type": "array", "items": TEXT},
                    "context": {"type": "array", "items": {"type": "integer"}},
                    "raw": FLAG,
                    "stream": FLAG,
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
            body=object_schema(
                {
                    "model": _NAME,
                    "input": {"type": ["string", "array"], "items": TEXT},
                    "dimensions": {"type": "integer", "minimum": 0},
                    "keep_alive": _KEEP,
                },
                "model",
            ),
            relayed=True,
        ),
        "POST /api/embeddings": Shape(
            body=object_schema({"model": _NAME, "prompt": TEXT, "keep_alive": _KEEP}, "model"),
            relayed=True,
        ),
        "POST /api/pull": Shape(
            body=object_schema(
                {
                    "model": {"type": "string", "description": "hf.co/OWNER/REPO:QUANT"},
                    "stream": FLAG,
                },
                "model",
            ),
            answers=_LINED,
            fails=(501,),
        ),
        "DELETE /api/delete": Shape(
            body=object_schema({"model": _NAME}, "model"), answers=(), fails=(409, 412, 422, 507)
        ),
        "POST /api/show": Shape(body=object_schema({"model": _NAME}, "model")),
    }
)
