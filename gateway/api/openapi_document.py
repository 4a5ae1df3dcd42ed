"""What this gateway answers, made from its route tables: the document of GET /openapi.json.

It is OpenAPI 3.1. Paths, methods, scopes and errors come from the routes of the
application and from :data:`gateway.proxy.routes.TABLE`; summaries from the handlers' docstrings;
bodies from :mod:`gateway.api.openapi_shapes`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gateway import __version__
from gateway.api import probes
from gateway.api.auth import Scope
from gateway.api.middleware import scope_of
from gateway.api.openapi import Routes, docs
from gateway.api.openapi_shapes import Shape, of_ours, of_relayed
from gateway.api.request import Handler
from gateway.proxy.dialect import ANTHROPIC
from gateway.proxy.routes import TABLE, Access, Route

#: What `*` stands for. HEAD is answered with 405 there, and OPTIONS by CORS.
_ANY: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PARAMETER: Final = re.compile(r"\{(\w+)(?::[^}]*)?\}")
#: ``GET /x ``{body}``: `` at the start of a docstring: method and path stand beside it anyway.
_HEADING: Final = re.compile(r"(?:GET|POST|PATCH|DELETE|Any method)\b[^:]*: ?")

_TEXT: Final = {"type": "string"}
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "code": {"type": ["string", "null"]},
                "param": {"type": ["string", "null"]},
            },
        }
    },
}
_ANTHROPIC_ERROR: Final = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": _TEXT, "message": _TEXT},
        },
    },
}
_SCHEMAS: Final = {"Error": _ERROR, "AnthropicError": _ANTHROPIC_ERROR}
_EVENTS: Final = "text/event-stream"
_REASONS: Final[Mapping[int, str]] = {
    400: "the request cannot be understood",
    401: "no key, or a wrong one",
    403: "the key may not do this",
    404: "no such model, personality, key or file",
    408: "the rest of the request did not come in time",
    413: "the body is too long",
    414: "the address is too long",
    415: "the body is packed, or of a kind, as isn't taken here",
    417: "Expect asks for something other than 100-continue",
    421: "this gateway is not called by that Host; see allowed_hosts",
    429: "over a limit of the key, or too many wrong keys or connections; see Retry-After",
    431: "the headers are too long, or too many",
    500: "models.json is broken, or the model did not load",
    502: "llama-server died, or what it said is not HTTP",
    503: "not now; see Retry-After",
    504: "llama-server said nothing for too long",
}
#: Said before anybody looks at the path: of what is no request, too slow, for somebody else, or
#: one too many.
_ANYWHERE: Final = (400, 408, 414, 417, 421, 429, 431, 503)


def document(routes: Routes, *, query_key: bool) -> dict[str, Any]:
    """The OpenAPI document of ``routes``. ``query_key``: GET takes ``?authKey=`` as well."""
    relayed = {(route.method, route.path): route for route in TABLE}
    paths: dict[str, dict[str, Any]] = {}
    for method, path, handler in routes:
        operations = paths.setdefault(_PARAMETER.sub(r"{\1}", path), {})
        for each in _ANY if method == "*" else (method,):
            route = relayed.get((each, path))
            operations[each.lower()] = _operation(each, path, handler, route, query_key)
    schemes: dict[str, Any] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    }
    if query_key:
        schemes["query"] = {
            "type": "apiKey",
            "in": "query",
            "name": "authKey",
            "description": "on GET only, for EventSource, which cannot send headers",
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llm-gateway",
            "version": __version__,
            "description": "x-scope says what an operation asks for: no key (public), any key "
            "(chat), or an admin key (admin).",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "gateway"}, {"name": "llama-server"}],
        "paths": paths,
        "components": {
            "securitySchemes": schemes,
            "schemas": _SCHEMAS,
            "responses": {
                f"{name}{status}": {
                    "description": reason,
                    "content": {
                        "application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}
                    },
                }
                for name in _SCHEMAS
                for status, reason in _REASONS.items()
            },
        },
    }


def _operation(
    method: str, path: str, handler: Handler, route: Route | None, query_key: bool
) -> dict[str, Any]:
    scope = scope_of(handler)
    refused = route is not None and route.access is Access.REFUSED
    if handler is docs:
        shape = Shape(answers=("text/html",))
    else:
        shape = of_relayed(route) if route and not refused else of_ours(handler, method)
    summary = _summary(handler) if route is None else f"{route.target} of the model's llama-server"
    if refused:
        summary = "Refused"
    operation: dict[str, Any] = {
        "operationId": _operation_id(method, path),
        "tags": ["gateway" if route is None else "llama-server"],
        "summary": summary,
        "x-scope": scope.value,
        "security": list(_security(method, scope, query_key)),
    }
    if route is not None and route.reason:
        operation["description"] = f"{route.access.value}: {route.reason}".capitalize()
    if parameters := [*_in_path(path), *_in_query(shape)]:
        operation["parameters"] = parameters
    if shape.body is not None:
        operation["requestBody"] = {
            "required": shape.body_required,
            "content": {shape.body_type: {"schema": shape.body}},
        }
    responses: dict[str, Any] = {}
    if not refused:
        content = {kind: {"schema": _TEXT if kind == _EVENTS else {}} for kind in shape.answers}
        responses[str(shape.status)] = {"description": "done", "content": content}
        if shape.also is not None:
            responses[str(shape.also)] = {"description": "not now", "content": content}
    says = "AnthropicError" if route is not None and route.dialect is ANTHROPIC else "Error"
    for status in sorted(_errors(handler, scope, shape, refused=refused)):
        if status == shape.also:
            continue
        responses[str(status)] = {"$ref": f"#/components/responses/{says}{status}"}
    operation["responses"] = responses
    return operation


def _errors(handler: Handler, scope: Scope, shape: Shape, *, refused: bool) -> Iterable[int]:
    """The statuses of :data:`_REASONS` that an operation can end with."""
    if scope is Scope.PUBLIC:
        return (*_ANYWHERE, 404) if handler is probes.acme_challenge else _ANYWHERE
    if refused:
        return (*_ANYWHERE, 401, 403)
    never = set() if shape.relayed else {502, 504}
    if shape.body is None:
        never |= {413, 415}
    return (status for status in _REASONS if status not in never)


def _summary(handler: Handler) -> str:
    paragraph = (inspect.getdoc(handler) or "").partition("\n\n")[0]
    line = _HEADING.sub("", " ".join(paragraph.split()), count=1).replace("``", "`")
    return line[:1].upper() + line[1:]


def _operation_id(method: str, path: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9]+", "_", _PARAMETER.sub(r"\1", path)).strip("_")
    return f"{method.lower()}_{plain}"


def _security(method: str, scope: Scope, query_key: bool) -> Iterator[dict[str, list[str]]]:
    if scope is not Scope.PUBLIC:
        yield {"bearer": []}
        yield {"header": []}
        if query_key and method == "GET":
            yield {"query": []}


def _in_path(path: str) -> Iterator[dict[str, Any]]:
    for match in _PARAMETER.finditer(path):
        yield {
            "name": match[1],
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
        }


def _in_query(shape: Shape) -> Iterator[dict[str, Any]]:
    for name, schema in shape.query.items():
        required = name in shape.needed
        yield {"name": name, "in": "query", "required": required, "schema": schema}
