"""Makes the document of GET /openapi.json from the route table (OpenAPI 3.1).

Paths, methods, scopes and errors come from the rows and from :data:`gateway.proxy.routes.TABLE`,
summaries from the handlers' docstrings, bodies from :mod:`gateway.api.openapi.shapes`, answers from
:mod:`gateway.api.openapi.answers`, and groups, words and examples from
:mod:`gateway.api.openapi.examples`.

Anybody may read it, so it has no names or addresses of this machine, and only the API's own
version.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.api.openapi.answers import Answers
from gateway.api.openapi.examples import REFUSED, Examples, OperationExample, plain
from gateway.api.openapi.ollama_shapes import SHAPES
from gateway.api.openapi.shapes import Shape, of_ours, of_relayed
from gateway.clients.samples import Example, samples
from gateway.pipeline.route import Routes, Row
from gateway.proxy.dialect import ANTHROPIC, OLLAMA
from gateway.proxy.routes import METRICS, TABLE, RelayedRoute, dialect_at
from gateway.scope import Scope
from gateway.streams.kinds import LINES

#: The methods that `*` stands for. HEAD gets 405 there, and OPTIONS is answered by CORS.
_ANY: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PARAMETER: Final = re.compile(r"\{(\w+)(?::[^}]*)?\}")
#: ``GET /x ``{body}``: `` at the start of a docstring, which the document shows elsewhere.
_HEADING: Final = re.compile(r"(?:GET|POST|PUT|PATCH|DELETE|Any method)\b[^:]*: ?")

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
_OLLAMA_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": _TEXT},
}
_SCHEMAS: Final = {
    "Error": _ERROR,
    "AnthropicError": _ANTHROPIC_ERROR,
    "OllamaError": _OLLAMA_ERROR,
}
#: Whose errors stand in which schema, by the name of their dialect.
_SAID: Final = {ANTHROPIC.name: "AnthropicError", OLLAMA.name: "OllamaError"}
_EVENTS: Final = "text/event-stream"
_REASONS: Final[Mapping[int, str]] = {
    400: "the request cannot be understood",
    401: "no key, or a wrong one",
    403: "the key may not do this",
    404: "no such model, personality, key or file",
    408: "the rest of the request did not come in time",
    409: "the request was cancelled, or its stream has the id of another; of entries: models.json "
    "is broken, and is left as it is until somebody has mended it",
    412: "what If-Match or If-None-Match ask for doesn't hold: somebody else was faster",
    413: "the body is too long",
    414: "the address is too long",
    415: "the body is packed, or of a kind, as isn't taken here",
    417: "Expect asks for something other than 100-continue",
    421: "this gateway is not called by that Host; see allowed_hosts",
    422: "what is asked for would not work: of an entry `error.problems` lists everything",
    429: "over a limit of the key, or too many wrong keys or connections; see Retry-After",
    431: "the headers are too long, or too many",
    500: "models.json is broken, or the model did not load",
    501: "an optional package is not installed: the message names it",
    502: "llama-server, or the hub, died or said what can't be understood",
    503: "not now; see Retry-After",
    504: "llama-server said nothing for too long",
    507: "the disk is full",
}
#: Statuses that are about the operation at hand; all others are described once.
_OF_AN_OPERATION: Final = (404, 409, 412, 422, 501, 507)
#: The version of the API, which grows and loses nothing.
_VERSION: Final = "1"
_ABOUT: Final = """\
One address for the models of a box: OpenAI's, Anthropic's and llama-server's APIs, and \
administration.

A key goes into `Authorization: Bearer KEY` or `X-Api-Key: KEY`{query}. `x-scope` of an operation \
says what it asks for: {scopes}. \
`llm-gateway keys create NAME` makes one.

Answers carry `X-Request-Id` and, where a model was asked, `X-Gateway-Model`.

## Errors that every operation shares

Each is `{{"error": {{"message", "type", "code", "param"}}}}`; below `/v1/messages` it has \
Anthropic's form, below `/api` Ollama's. They are the `default` answer of every operation and not \
repeated there:

| status | means |
|---|---|
{rows}
"""


def document(routes: Routes, *, query_key: bool) -> dict[str, Any]:
    """Return the OpenAPI document of ``routes``. ``query_key``: GET takes ``?authKey=`` as well.

    Blocking: reads files.
    """
    relayed = {(route.method, route.path): route for route in TABLE if route.path != METRICS}
    examples, answers = Examples(), Answers()
    operations = [
        row._replace(method=method)
        for row in routes
        for method in (_ANY if row.method == "*" else (row.method,))
    ]
    operations.sort(key=lambda row: examples.place(row.method, plain(row.path)))
    paths: dict[str, dict[str, Any]] = {}
    for row in operations:
        method, path = row.method, row.path
        route = relayed.get((method, path))
        told = examples.of(method, plain(path))
        answer = answers.of(method, plain(path))
        paths.setdefault(plain(path), {})[method.lower()] = _operation(
            row, route, told, answer, query_key
        )
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
            "title": "LLM-API Gateway",
            "version": _VERSION,
            "description": _about(query_key),
        },
        "servers": [{"url": "/"}],
        "tags": examples.tags,
        "paths": paths,
        "components": {
            "securitySchemes": schemes,
            "schemas": {**_SCHEMAS, **answers.schemas},
            "responses": {
                f"{name}{status}": _error(name, reason)
                for name in _SCHEMAS
                for status, reason in [
                    *((status, _REASONS[status]) for status in _OF_AN_OPERATION),
                    ("", "an error: see those that every operation shares"),
                ]
            },
        },
    }


def _about(query_key: bool) -> str:
    rows = "\n".join(
        f"| {status} | {reason} |"
        for status, reason in _REASONS.items()
        if status not in _OF_AN_OPERATION
    )
    query = ", on GET also into `?authKey=KEY`" if query_key else ""
    *others, last = (f"{scope.asks_for} (`{scope.value}`)" for scope in Scope)
    return _ABOUT.format(query=query, rows=rows, scopes=f"{', '.join(others)}, or {last}")


def _error(name: str, reason: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": reason, "content": {"application/json": {"schema": schema}}}


def _operation(
    row: Row,
    route: RelayedRoute | None,
    told: OperationExample | None,
    answer: dict[str, Any] | None,
    query_key: bool,
) -> dict[str, Any]:
    method, path, scope = row.method, row.path, row.scope
    refused = route is not None and route.refused
    shape = _shape(row, None if refused else route)
    told = told or OperationExample(REFUSED if refused else "")
    operation: dict[str, Any] = {
        "operationId": _operation_id(method, path),
        "tags": [told.tag] if told.tag else [],
        "summary": "Refused" if refused else told.summary or _summary(row.handler),
        "x-scope": scope.value,
        "security": list(_security(method, scope, query_key)),
    }
    if told.endless:
        operation["x-endless"] = True
    if about := " ".join(_abouts(route, told, refused=refused)):
        operation["description"] = about
    if parameters := [
        *_in_path(path, told),
        *_in_query(shape, told),
        *_in_headers(shape, told),
    ]:
        operation["parameters"] = parameters
    if shape.body is not None:
        media: dict[str, Any] = {"schema": shape.body}
        if told.request is not None:
            media["example"] = told.request
        operation["requestBody"] = {
            "required": shape.body_required,
            "content": dict.fromkeys(shape.body_types, media),
        }
    says = _SAID.get(dialect_at(path).name, "Error")
    operation["responses"] = _responses(path, scope, shape, told, answer, says, refused=refused)
    operation["x-codeSamples"] = samples(
        Example(
            method,
            plain(path),
            query=told.query,
            headers=told.headers,
            values=told.path or {name: name for name in _PARAMETER.findall(path)},
            body=told.request if shape.body is not None else None,
            form=shape.body_types[0].startswith("multipart/"),
            public=scope is Scope.PUBLIC,
            stream=told.endless,
            text=bool(told.text) or refused,
        )
    )
    return operation


def _shape(row: Row, route: RelayedRoute | None) -> Shape:
    if row.answers_with:
        return Shape(answers=row.answers_with)
    if route is not None:
        return of_relayed(route)
    path = plain(row.path)
    return SHAPES.get(f"{row.method} {path}") or of_ours(row.method, path)


def _abouts(route: RelayedRoute | None, told: OperationExample, *, refused: bool) -> Iterator[str]:
    if told.about:
        yield told.about
    if route is not None and not refused and not told.same_as:
        yield f"Answered by the model's llama-server (`{route.target}`)."
    if route is not None and route.reason:
        yield f"{'nobody' if refused else route.scope.asks_for}: {route.reason}.".capitalize()


def _responses(
    path: str,
    scope: Scope,
    shape: Shape,
    told: OperationExample,
    answer: dict[str, Any] | None,
    says: str,
    *,
    refused: bool,
) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    if refused:
        error = _error(says, "it is refused, whoever asks")
        message = f"{path} of llama-server is not to be had here"
        shown = {"message": message, "type": "permission_error", "code": "route_refused"}
        error["content"]["application/json"]["example"] = {"error": {**shown, "param": None}}
        responses["403"] = error
    else:
        content = {kind: _shown(kind, told, answer) for kind in shape.answers}
        for succeeded in (shape.status, *shape.or_else):
            responses[str(succeeded)] = {"description": "done"}
            if content:
                responses[str(succeeded)]["content"] = content
        if shape.unchanged:
            responses["304"] = {"description": "it is what If-None-Match names"}
        if shape.also is not None:
            responses[str(shape.also)] = {"description": "not now", "content": content}
    for status in sorted(_errors(path, scope, shape, refused=refused)):
        responses[str(status)] = {"$ref": f"#/components/responses/{says}{status}"}
    responses["default"] = {"$ref": f"#/components/responses/{says}"}
    return responses


def _shown(kind: str, told: OperationExample, answer: dict[str, Any] | None) -> dict[str, Any]:
    """Return an answer of one media type, with an example if there is one."""
    media: dict[str, Any] = {"schema": {}}
    if kind.endswith("json") and kind != LINES:
        media["schema"] = answer or {}
    elif kind != "*/*":
        media["schema"] = _TEXT
    if kind == _EVENTS:
        example = told.events
    elif kind == "application/json":
        example = told.answer
    else:
        example = told.text or told.answer
    if example not in (None, ""):
        media["example"] = example
    return media


def _errors(path: str, scope: Scope, shape: Shape, *, refused: bool) -> Iterator[int]:
    """Yield those of :data:`_OF_AN_OPERATION` that an operation can end with."""
    if refused:
        return
    names = "{" in path or shape.relayed or _names_a_model(shape)
    if names:
        yield 404
    if shape.relayed:
        yield 409
    if scope is not Scope.PUBLIC:
        yield from shape.fails


def _names_a_model(shape: Shape) -> bool:
    body = shape.body or {}
    return "model" in shape.query or "model" in body.get("properties", ())


def _summary(handler: object) -> str:
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


def _in_path(path: str, told: OperationExample) -> Iterator[dict[str, Any]]:
    for match in _PARAMETER.finditer(path):
        yield {
            "name": match[1],
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
            **_example(told.path, match[1]),
        }


def _in_query(shape: Shape, told: OperationExample) -> Iterator[dict[str, Any]]:
    for name, schema in shape.query.items():
        yield {
            "name": name,
            "in": "query",
            "required": name in shape.needed,
            **({"description": schema["description"]} if "description" in schema else {}),
            "schema": schema,
            **_example(told.query, name),
        }


def _in_headers(shape: Shape, told: OperationExample) -> Iterator[dict[str, Any]]:
    for name, what in shape.headers.items():
        yield {
            "name": name,
            "in": "header",
            "required": False,
            "description": what,
            "schema": _TEXT,
            **_example(told.headers, name),
        }


def _example(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"example": values[name]} if name in values else {}
