"""What each route takes, for the OpenAPI document: bodies and query parameters, as JSON Schema.

Everything else in that document follows from the route tables. What stands here of llama-server's
routes is only what a request cannot do without; the rest is in its own README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from gateway.api import admin, admin_keys, classic, probes, relayed, router
from gateway.api.key_fields import LIMIT_NAMES
from gateway.api.request import Handler
from gateway.proxy.personality import ANTHROPIC, CHAT, COMPLETION, RESPONSES
from gateway.proxy.routes import ModelIn, Route

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_FLAG: Final[Schema] = {"type": "boolean"}
_NAMES: Final[Schema] = {"type": ["array", "null"], "items": {"type": "string", "minLength": 1}}
_MODEL: Final[Schema] = {
    "type": "string",
    "description": "a model of models.json, an alias, or NAME:PERSONALITY",
}
_PERSONALITY: Final[Schema] = {
    "type": ["string", "null"],
    "description": "a personality of the model, or `none`",
}
_MESSAGES: Final[Schema] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {"role": _TEXT, "content": {}},
        "required": ["role"],
    },
}
_PROMPT: Final[Schema] = {
    "description": "a text, a list of tokens, or a list of either",
    "type": ["string", "array"],
}
_INPUT: Final[Schema] = {"description": "a text, or a list of items", "type": ["string", "array"]}


def _object(properties: Mapping[str, Schema], *required: str, more: bool = True) -> Schema:
    schema: Schema = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = list(required)
    if not more:
        schema["additionalProperties"] = False
    return schema


@dataclass(frozen=True, slots=True)
class Shape:
    """One route: query parameters by name, the body, and what kind of answer comes.

    ``needed`` are the parameters that must be there; ``status`` is that of a success,
    ``answers`` are its media types; ``also`` is another status with the same kind of body;
    ``relayed``: a model's llama-server has its say.
    """

    query: Mapping[str, Schema] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    body_type: str = "application/json"
    status: int = 200
    answers: tuple[str, ...] = ("application/json",)
    also: int | None = None
    relayed: bool = False


_EVENTS: Final = ("text/event-stream",)
_PLAIN_TEXT: Final = ("text/plain",)
_EITHER: Final = ("application/json", "text/event-stream")

#: Fields of a key. A test holds them against what the routes accept.
KEY: Final[Mapping[str, Schema]] = MappingProxyType(
    {
        "name": {"type": "string", "minLength": 1, "maxLength": 100},
        "description": {"type": "string", "maxLength": 1000},
        "admin": _FLAG,
        "expires": {
            "type": ["string", "number", "null"],
            "description": "a time with its zone (ISO 8601), or how long from now: `30d`",
        },
        "models": _NAMES,
        "personalities": _NAMES,
        "defaultPersonality": {"type": ["string", "null"]},
        "limits": {
            "type": ["object", "null"],
            "properties": {
                name: {"type": ["integer", "null"], "minimum": 1} for name in LIMIT_NAMES
            },
            "additionalProperties": False,
        },
    }
)

_LOADED: Final = Shape(body=_object({"model": _MODEL}, "model"))

_OURS: Final[Mapping[Handler, Shape]] = MappingProxyType(
    {
        probes.ready: Shape(also=503),
        probes.ping: Shape(answers=_PLAIN_TEXT),
        probes.acme_challenge: Shape(answers=("text/plain", "application/octet-stream")),
        router.models: Shape(
            query={"loaded": _FLAG, "format": {"type": "string", "enum": ["openai", "router"]}}
        ),
        router.load: _LOADED,
        router.unload: _LOADED,
        router.events: Shape(answers=_EVENTS),
        classic.load_model: Shape(
            body=_object({"model": _MODEL, "personality": _PERSONALITY}, "model")
        ),
        classic.unload_model: Shape(
            query={"model": _MODEL}, body=_object({"model": _MODEL}), body_required=False
        ),
        classic.status: Shape(answers=_EVENTS),
        classic.chat_ask: Shape(
            query={
                "question": {"type": "string", "minLength": 1},
                "stream": _FLAG,
                "model": _MODEL,
                "personality": _TEXT,
            },
            needed=("question",),
            relayed=True,
            answers=_EITHER,
        ),
        admin.model_log: Shape(query={"follow": _FLAG}, answers=_EITHER),
        admin_keys.create_key: Shape(body=_object(KEY, "name", more=False), status=201),
        admin_keys.change_key: Shape(query={"force": _FLAG}, body=_object(KEY, more=False)),
        admin_keys.revoke_key: Shape(query={"force": _FLAG}),
        admin_keys.usage: Shape(
            query={"days": {"type": "integer", "minimum": 1, "maximum": admin_keys.MAX_DAYS}}
        ),
        relayed.upstream: Shape(
            body={}, body_required=False, body_type="*/*", answers=("*/*",), relayed=True
        ),
    }
)
_DEFAULT: Final = Shape()

#: Message format of a route -> what its body must have.
_FORMATS: Final[Mapping[str, Mapping[str, Schema]]] = MappingProxyType(
    {
        CHAT.name: {"messages": _MESSAGES},
        ANTHROPIC.name: {"messages": _MESSAGES},
        RESPONSES.name: {"input": _INPUT},
        COMPLETION.name: {"prompt": _PROMPT},
    }
)
#: The same, by the path at llama-server without /v1, of routes with no message format.
_BODIES: Final[Mapping[str, Mapping[str, Schema]]] = MappingProxyType(
    {
        "/embedding": {"content": _PROMPT},
        "/embeddings": {"input": _PROMPT},
        "/rerank": {"query": _TEXT, "documents": {"type": "array", "items": _TEXT}},
        "/reranking": {"query": _TEXT, "documents": {"type": "array", "items": _TEXT}},
        "/infill": {"input_prefix": _TEXT, "input_suffix": _TEXT},
        "/tokenize": {"content": {}},
        "/detokenize": {"tokens": {"type": "array", "items": {"type": "integer"}}},
    }
)


def of_ours(handler: Handler, method: str) -> Shape:
    """What one of the gateway's own routes takes."""
    shape = _OURS.get(handler, _DEFAULT)
    # A body of GET has no meaning (RFC 9110, 9.3.1).
    return replace(shape, body=None) if method == "GET" else shape


def of_relayed(route: Route) -> Shape:
    """What a route of llama-server's takes, as far as the gateway looks at it."""
    if route.model is ModelIn.QUERY:
        model = {"model": _MODEL}
        if route.method == "GET":
            answers: tuple[str, ...] = ("application/json",)
            if route.path == "/metrics":
                answers = _PLAIN_TEXT
            return Shape({**model, "autoload": _FLAG}, answers=answers, relayed=True)
        return Shape(model, body={}, body_required=False, relayed=True)
    if route.model is ModelIn.FORM:
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        form = _object({"model": _MODEL, "file": file}, "file")
        return Shape(
            query={"model": _MODEL},
            body=form,
            body_type="multipart/form-data",
            answers=_EITHER,
            relayed=True,
        )
    needed = _FORMATS.get(route.format.name) or _BODIES.get(route.path.removeprefix("/v1"), {})
    own: dict[str, Schema] = {"model": _MODEL, "personality": _PERSONALITY, **needed}
    streams = not route.beside and (route.defaults or route.format is ANTHROPIC)
    if streams:
        own["stream"] = _FLAG
    kinds = _EITHER if streams else ("application/json",)
    return Shape(body=_object(own, *needed), answers=kinds, relayed=True)
