"""Bodies and query parameters of each route as JSON Schema, for the OpenAPI document.

Of llama-server's routes only the required fields stand here; the others are in its own README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from gateway.access import usage_report
from gateway.access.key_schema import body_schema
from gateway.api import admin_requests, log, metrics, overview, own_key
from gateway.log_tail import MOST
from gateway.proxy.personality import ANTHROPIC, CHAT, COMPLETION, RESPONSES
from gateway.proxy.routes import ModelIn, RelayedRoute

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
FLAG: Final[Schema] = {"type": "boolean"}
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
        "properties": {"role": TEXT, "content": {}},
        "required": ["role"],
    },
}
_PROMPT: Final[Schema] = {
    "description": "a text, a list of tokens, or a list of either",
    "type": ["string", "array"],
}
_INPUT: Final[Schema] = {"description": "a text, or a list of items", "type": ["string", "array"]}
_CSV: Final = "text/csv"
_FORMAT: Final[Schema] = {"type": "string", "enum": ["json", "csv"]}


def object_schema(properties: Mapping[str, Schema], *required: str, more: bool = True) -> Schema:
    """Return the schema of an object with these properties; without ``more`` with no others."""
    schema: Schema = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = list(required)
    if not more:
        schema["additionalProperties"] = False
    return schema


def _usage(by: tuple[str, ...]) -> Shape:
    return Shape(
        query={
            "days": {"type": "integer", "minimum": 1, "maximum": usage_report.MAX_DAYS},
            "by": {"type": "string", "pattern": "^({0})(,({0}))*$".format("|".join(by))},
            "format": _FORMAT,
        },
        answers=("application/json", _CSV),
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """One route: query parameters by name, the body, and what kind of answer comes.

    ``needed`` are the parameters that must be there; ``status`` is that of a success,
    ``answers`` are its media types; ``also`` is another status with the same kind of body;
    ``or_else`` are other successes; ``unchanged``: 304 is one, without a body; ``headers``: what
    they do; ``fails``: statuses of errors of its own, 409 and above; ``relayed``: a model's
    llama-server has its say. ``body_types``: media types of the body, the usual one first.
    """

    query: Mapping[str, Schema] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    body_types: tuple[str, ...] = ("application/json",)
    status: int = 200
    answers: tuple[str, ...] = ("application/json",)
    also: int | None = None
    or_else: tuple[int, ...] = ()
    unchanged: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    fails: tuple[int, ...] = ()
    relayed: bool = False


_EVENTS: Final = ("text/event-stream",)
_PLAIN_TEXT: Final = ("text/plain",)
_EITHER: Final = ("application/json", "text/event-stream")

_KEY: Final = body_schema()
_CONDITIONS: Final[Mapping[str, str]] = {
    "If-Match": "the ETag of the entry that was read: 412 if it is another by now",
    "If-None-Match": "`*`: 412 if there is such an entry",
}
_ENTRY: Final[Schema] = {
    "type": "object",
    "description": "an entry of models.json, as /schemas/models.json has it; `***` stands for a "
    "value that is hidden, and that stays",
}

_CHANGE_FAILS: Final = (409, 412, 422, 507)

_LOADED: Final = Shape(body=object_schema({"model": _MODEL}, "model"))

#: The shapes of the gateway's own routes, by method (``*``: any) and path.
#: A page of a list, of OpenAI's API.
_PAGE: Final[Mapping[str, Schema]] = MappingProxyType(
    {
        "after": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 100},
        "order": {"type": "string", "enum": ["asc", "desc"]},
    }
)
_ITEMS: Final[Schema] = {"type": "array", "items": {"type": "object"}}
_METADATA: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}
_OURS: Final[Mapping[str, Shape]] = MappingProxyType(
    {
        "GET /ready": Shape(also=503),
        "GET /ping": Shape(answers=_PLAIN_TEXT),
        "GET /.well-known/acme-challenge/{token}": Shape(
            answers=("text/plain", "application/octet-stream")
        ),
        "GET /metrics": Shape(
            query={"backends": FLAG, "model": _MODEL, "autoload": FLAG}, answers=metrics.FORMATS
        ),
        "GET /models": Shape(
            query={"loaded": FLAG, "format": {"type": "string", "enum": ["openai", "router"]}}
        ),
        "POST /models/load": _LOADED,
        "POST /models/unload": _LOADED,
        "GET /models/sse": Shape(answers=_EVENTS),
        "POST /loadModel": Shape(
            body=object_schema({"model": _MODEL, "personality": _PERSONALITY}, "model")
        ),
        "* /unloadModel": Shape(
            query={"model": _MODEL}, body=object_schema({"model": _MODEL}), body_required=False
        ),
        "GET /status": Shape(answers=_EVENTS),
        "GET /chat/ask": Shape(
            query={
                "question": {"type": "string", "minLength": 1},
                "stream": FLAG,
                "model": _MODEL,
                "personality": TEXT,
            },
            needed=("question",),
            relayed=True,
            answers=_EITHER,
        ),
        "GET /admin/status": Shape(
            query={
                "follow": FLAG,
                "every": {
                    "type": "number",
                    "minimum": overview.OFTEN,
                    "maximum": overview.SELDOM,
                },
            },
            answers=_EITHER,
        ),
        "GET /admin/models/{model}/log": Shape(query={"follow": FLAG}, answers=_EITHER),
        "GET /admin/log": Shape(
            query={
                "follow": FLAG,
                "level": {"type": "string", "enum": list(log.LEVELS)},
                "lines": {"type": "integer", "minimum": 1, "maximum": MOST},
            },
            answers=_EITHER,
        ),
        "GET /admin/system/history": Shape(
            query={"range": {"type": "string", "description": "a duration from 1m to 7d, like 24h"}}
        ),
        "GET /admin/hub": Shape(
            query={
                "model": {"type": "string", "description": "OWNER/REPO"},
                "revision": {"type": "string", "description": "a branch, a tag or a commit"},
                "node": {"type": "string", "description": "for which machine"},
            },
            needed=("model",),
            fails=(422, 501),
        ),
        "GET /admin/models/{name}": Shape(
            headers={"If-None-Match": "the ETag of what is known: 304 if it is still that"},
            unchanged=True,
            fails=(409,),
        ),
        "PUT /admin/models/{name}": Shape(
            body=_ENTRY, or_else=(201,), headers=_CONDITIONS, fails=_CHANGE_FAILS
        ),
        "PATCH /admin/models/{name}": Shape(
            body=_ENTRY,
            body_types=("application/merge-patch+json", "application/json"),
            headers=_CONDITIONS,
            fails=_CHANGE_FAILS,
        ),
        "DELETE /admin/models/{name}": Shape(
            status=204, answers=(), headers=_CONDITIONS, fails=_CHANGE_FAILS
        ),
        "POST /admin/keys": Shape(body=object_schema(_KEY, "name", more=False), status=201),
        "PATCH /admin/keys/{id}": Shape(
            query={"force": FLAG}, body=object_schema(_KEY, more=False)
        ),
        "DELETE /admin/keys/{id}": Shape(query={"force": FLAG}),
        "GET /admin/usage": _usage(usage_report.USAGE_BY),
        "GET /key/usage": _usage(own_key.OWN_USAGE_BY),
        "GET /admin/requests": Shape(
            query={
                "key": {"type": "string", "description": "id or name of a key"},
                "model": TEXT,
                "status": {
                    "type": "string",
                    "pattern": f"^{admin_requests.STATUS}(,{admin_requests.STATUS})*$",
                },
                "slow": {"type": "number", "minimum": 0, "description": "seconds, at least"},
                "cached_from": {
                    "type": "string",
                    "pattern": f"^{admin_requests.PLACE}(,{admin_requests.PLACE})*$",
                },
                "format": _FORMAT,
                "limit": {"type": "integer", "minimum": 1, "maximum": admin_requests.MOST},
                "cursor": {"type": "string", "description": "`next` of the answer before"},
                "follow": FLAG,
                "every": {
                    "type": "number",
                    "minimum": overview.OFTEN,
                    "maximum": overview.SELDOM,
                },
            },
            answers=(*_EITHER, _CSV),
        ),
        "DELETE /admin/cache": Shape(
            query={"key": {"type": "string"}, "model": {"type": "string"}}
        ),
        "DELETE /admin/requests/{id}": Shape(status=204, answers=()),
        "GET /v1/streams/{id}": Shape(
            query={"after": {"type": "integer", "minimum": 0}},
            headers={"Last-Event-ID": "the number of the last event that was seen"},
            answers=_EVENTS,
        ),
        "DELETE /v1/streams/{id}": Shape(status=204, answers=()),
        "GET /v1/responses/{response_id}": Shape(
            query={
                "stream": {"type": "boolean"},
                "starting_after": {"type": "integer", "minimum": 0},
            },
            answers=_EITHER,
        ),
        "GET /v1/responses/{response_id}/input_items": Shape(query=_PAGE),
        "POST /v1/conversations": Shape(
            body=object_schema({"items": _ITEMS, "metadata": _METADATA}), body_required=False
        ),
        "POST /v1/conversations/{conversation_id}": Shape(
            body=object_schema({"metadata": _METADATA}, "metadata")
        ),
        "GET /v1/conversations/{conversation_id}/items": Shape(query=_PAGE),
        "POST /v1/conversations/{conversation_id}/items": Shape(
            body=object_schema({"items": _ITEMS}, "items")
        ),
        "GET /admin/pulls": Shape(answers=_EITHER),
        "POST /admin/pulls": Shape(
            body=object_schema(
                {
                    "model": {"type": "string", "description": "OWNER/REPO or OWNER/REPO:QUANT"},
                    "revision": {"type": "string", "description": "a branch, a tag or a commit"},
                    "name": {"type": "string", "description": "of its entry in models.json"},
                    "entry": FLAG,
                    "replace": FLAG,
                    "node": {"type": "string", "description": "which machine fetches it"},
                },
                "model",
                more=False,
            ),
            status=202,
            fails=(501,),
        ),
        "DELETE /admin/pulls/{id}": Shape(query={"discard": FLAG}),
        "GET /clients": Shape(query={"model": _MODEL, "url": TEXT, "key": FLAG}),
        "GET /schemas/{name}": Shape(answers=("application/schema+json",)),
        "* /upstream/{path}": Shape(
            body={}, body_required=False, body_types=("*/*",), answers=("*/*",), relayed=True
        ),
    }
)
_DEFAULT: Final = Shape()

#: Message format of a route -> the fields that its body must have.
_FORMATS: Final[Mapping[str, Mapping[str, Schema]]] = MappingProxyType(
    {
        CHAT.name: {"messages": _MESSAGES},
        ANTHROPIC.name: {"messages": _MESSAGES},
        RESPONSES.name: {"input": _INPUT},
        COMPLETION.name: {"prompt": _PROMPT},
    }
)
#: The same for routes without a message format, by the path of llama-server without /v1.
_BODIES: Final[Mapping[str, Mapping[str, Schema]]] = MappingProxyType(
    {
        "/embedding": {"content": _PROMPT},
        "/embeddings": {"input": _PROMPT},
        "/rerank": {"query": TEXT, "documents": {"type": "array", "items": TEXT}},
        "/reranking": {"query": TEXT, "documents": {"type": "array", "items": TEXT}},
        "/infill": {"input_prefix": TEXT, "input_suffix": TEXT},
        "/tokenize": {"content": {}},
        "/detokenize": {"tokens": {"type": "array", "items": {"type": "integer"}}},
    }
)


def of_ours(method: str, path: str) -> Shape:
    """Return what one of the gateway's own routes takes; ``path`` as in a document."""
    shape = _OURS.get(f"{method} {path}") or _OURS.get(f"* {path}", _DEFAULT)
    # A body of GET has no meaning (RFC 9110, 9.3.1).
    return replace(shape, body=None) if method == "GET" else shape


def of_relayed(route: RelayedRoute) -> Shape:
    """Return what a route of llama-server's takes, as far as the gateway looks at it."""
    if route.model is ModelIn.QUERY:
        model = {"model": _MODEL}
        if route.method == "GET":
            return Shape({**model, "autoload": FLAG}, relayed=True)
        return Shape(model, body={}, body_required=False, relayed=True)
    if route.model is ModelIn.FORM:
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        form = object_schema({"model": _MODEL, "file": file}, "file")
        return Shape(
            query={"model": _MODEL},
            body=form,
            body_types=("multipart/form-data",),
            answers=_EITHER,
            relayed=True,
        )
    needed = _FORMATS.get(route.format.name) or _BODIES.get(route.path.removeprefix("/v1"), {})
    own: dict[str, Schema] = {"model": _MODEL, "personality": _PERSONALITY, **needed}
    streams = not route.unqueued and (route.defaults or route.format is ANTHROPIC)
    if streams:
        own["stream"] = FLAG
    kinds = _EITHER if streams else ("application/json",)
    return Shape(body=object_schema(own, *needed), answers=kinds, relayed=True)
