"""Every route of llama-server, and how the gateway treats it: one frozen table.

The routes of the application and the OpenAPI document are made from it. A route of a newer
llama-server that is not in here does not exist for clients; an administrator reaches it through
``/upstream/MODEL/...``, unless :func:`refusal` knows better.

Seen in llama.cpp's ``tools/server/server.cpp`` and its README, builds b10434 to b11549.
"""

from __future__ import annotations

import enum
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from gateway.proxy.ability import EMBEDDINGS, GENERATION, MEDIA, RERANKING
from gateway.proxy.dialect import ANTHROPIC as SAYS_ANTHROPIC
from gateway.proxy.dialect import OLLAMA, OPENAI, Dialect
from gateway.proxy.dialect import RESPONSES as SAYS_RESPONSES
from gateway.proxy.personality import (
    ANTHROPIC,
    CHAT,
    COMPLETION,
    NONE,
    RESPONSES,
    MessageFormat,
)
from gateway.scope import Scope


class ModelIn(enum.Enum):
    """The place where a request names its model."""

    BODY = "the field `model` of the JSON body"
    FORM = "the field `model` of the form"
    QUERY = "the query, ?model="


@dataclass(frozen=True, slots=True)
class RelayedRoute:
    """One route. ``upstream`` is the path of llama-server, the same if not given.

    ``format``: the message format, which a personality is put into. ``dialect``: how errors are
    said and usage is read. ``defaults``: sampling defaults of models.json go into the body.
    ``beside``: answered by llama-server beside its running requests, so no slot is waited for.
    ``reason``: why it is not for everybody. ``needs``: what a model must be able to do, see
    :mod:`gateway.proxy.ability`. ``refused``: nobody may call it.
    """

    method: str
    path: str
    upstream: str = ""
    model: ModelIn = ModelIn.BODY
    scope: Scope = Scope.CHAT
    format: MessageFormat = NONE
    dialect: Dialect = OPENAI
    defaults: bool = False
    unqueued: bool = False
    reason: str = ""
    needs: str = ""
    refused: bool = False

    @property
    def target(self) -> str:
        """The path of llama-server."""
        return self.upstream or self.path

    @property
    def streams(self) -> bool:
        """Whether it generates text, so that ``"stream": true`` makes its answer a stream."""
        return self.defaults


def _both(
    path: str,
    *,
    upstream: str = "",
    model: ModelIn = ModelIn.BODY,
    format: MessageFormat = NONE,
    dialect: Dialect = OPENAI,
    defaults: bool = False,
    unqueued: bool = False,
    needs: str = "",
) -> tuple[RelayedRoute, RelayedRoute]:
    """Return a POST route with and without /v1, as clients with either base URL ask for it."""
    target = upstream or f"/v1{path}"
    what = Scope.CHAT, format, dialect, defaults, unqueued, "", needs
    return (
        RelayedRoute("POST", path, target, model, *what),
        RelayedRoute("POST", f"/v1{path}", target, model, *what),
    )


def _refused(method: str, path: str, reason: str) -> RelayedRoute:
    return RelayedRoute(method, path, reason=reason, refused=True)


#: The path of metrics: llama-server's own are those of a model that the query names, all others
#: are the gateway's.
METRICS = "/metrics"
_RUNS_PROGRAMS = "it runs programs on this machine"
_FETCHES = "it would let clients into the network of this machine"
_REPLAYS = "it replays the answers of other clients"

TABLE: tuple[RelayedRoute, ...] = (
    # Conversations (OpenAI reference, Chat Completions and Responses; Anthropic's, Messages).
    *_both("/chat/completions", format=CHAT, defaults=True, needs=GENERATION),
    *_both("/responses", format=RESPONSES, dialect=SAYS_RESPONSES, defaults=True, needs=GENERATION),
    *_both("/messages", format=ANTHROPIC, dialect=SAYS_ANTHROPIC, defaults=True, needs=GENERATION),
    # Counting: the personality counts too. Nothing is generated, so no slot is needed.
    *_both("/chat/completions/input_tokens", format=CHAT, unqueued=True),
    *_both("/responses/input_tokens", format=RESPONSES, unqueued=True),
    *_both("/messages/count_tokens", format=ANTHROPIC, dialect=SAYS_ANTHROPIC, unqueued=True),
    # Ending the thinking of a running answer, by its id, which only its own client knows.
    *_both("/chat/completions/control", unqueued=True),
    # Legacy completions. Without /v1 they are llama.cpp's own, with other fields in the answer.
    RelayedRoute("POST", "/completion", format=COMPLETION, defaults=True, needs=GENERATION),
    RelayedRoute("POST", "/completions", format=COMPLETION, defaults=True, needs=GENERATION),
    RelayedRoute("POST", "/v1/completions", format=COMPLETION, defaults=True, needs=GENERATION),
    *_both("/infill", upstream="/infill", defaults=True, needs=GENERATION),
    # Embeddings. Without /v1 they are llama.cpp's own: a list, and per token if so asked.
    RelayedRoute("POST", "/embedding", needs=EMBEDDINGS),
    RelayedRoute("POST", "/embeddings", needs=EMBEDDINGS),
    RelayedRoute("POST", "/v1/embeddings", needs=EMBEDDINGS),
    *_both("/rerank", needs=RERANKING),
    *_both("/reranking", needs=RERANKING),
    # Decision models (llama.cpp's README, "TypeSafe-compatible").
    *_both("/systemone"),
    # A form with a file: streamed through.
    *_both("/audio/transcriptions", model=ModelIn.FORM, needs=MEDIA),
    # Text and tokens: done at once, whatever else runs.
    *_both("/tokenize", upstream="/tokenize", unqueued=True),
    *_both("/detokenize", upstream="/detokenize", unqueued=True),
    *_both("/apply-template", upstream="/apply-template", format=CHAT, unqueued=True),
    # What a model is. /props without a model is the router's: see gateway.api.router_mode.
    RelayedRoute("GET", "/props", model=ModelIn.QUERY, unqueued=True),
    RelayedRoute("GET", "/lora-adapters", model=ModelIn.QUERY, unqueued=True),
    RelayedRoute(
        "GET",
        "/slots",
        model=ModelIn.QUERY,
        scope=Scope.ADMIN,
        unqueued=True,
        reason="some builds show in it what other clients asked",
    ),
    RelayedRoute(
        "GET",
        METRICS,
        model=ModelIn.QUERY,
        scope=Scope.ADMIN,
        unqueued=True,
        reason="it tells what others do",
    ),
    RelayedRoute(
        "POST",
        "/props",
        model=ModelIn.QUERY,
        scope=Scope.ADMIN,
        unqueued=True,
        reason="it changes the model's defaults for everybody",
    ),
    RelayedRoute(
        "POST",
        "/lora-adapters",
        model=ModelIn.QUERY,
        scope=Scope.ADMIN,
        unqueued=True,
        reason="it changes the model for everybody",
    ),
    RelayedRoute(
        "POST",
        "/slots/{slot}",
        model=ModelIn.QUERY,
        scope=Scope.ADMIN,
        unqueued=True,
        reason="it empties other clients' caches; saving and restoring is refused, as it "
        "writes and reads files",
    ),
    # Never. (POST and DELETE /models, which download and delete files in router mode, do not
    # exist: models are those of models.json.)
    _refused("GET", "/tools", _RUNS_PROGRAMS),
    _refused("POST", "/tools", _RUNS_PROGRAMS),
    _refused("GET", "/cors-proxy", _FETCHES),
    _refused("POST", "/cors-proxy", _FETCHES),
    _refused("GET", "/v1/stream", _REPLAYS),
    _refused("GET", "/v1/stream/{conversation}", _REPLAYS),
    _refused("DELETE", "/v1/stream", _REPLAYS),
    _refused("DELETE", "/v1/stream/{conversation}", _REPLAYS),
    _refused("GET", "/v1/streams", _REPLAYS),
    _refused("POST", "/v1/streams/lookup", _REPLAYS),
)

_DIALECTS = {route.path: route.dialect for route in TABLE}
#: The paths that Anthropic's clients ask for, also with a wrong base URL, or for what isn't here.
_ANTHROPICS = re.compile(r"(?:/(?:v1|api|anthropic))*/messages(?:/|$)")

#: The paths that Ollama's clients ask for.
_OLLAMAS = re.compile(
    r"/api/(?:blobs/.*|chat|copy|create|delete|embed|embeddings|generate|ps|pull|push|show|tags"
    r"|version)"
)


def route_at(method: str, path: str) -> RelayedRoute:
    """Return the route of the table with this method and path; raises ``KeyError``."""
    for route in TABLE:
        if (route.method, route.path) == (method, path):
            return route
    raise KeyError(f"{method} {path}")


def dialect_at(path: str) -> Dialect:
    """Return whose errors the clients of ``path`` understand, whether there is such a
    route or not.
    """
    found = _DIALECTS.get(path)
    if found is None:
        found = SAYS_ANTHROPIC if _ANTHROPICS.match(path) else OPENAI
        if found is OPENAI and _OLLAMAS.fullmatch(path):
            found = OLLAMA
    return found


_NEVER = {route.path: route.reason for route in TABLE if route.refused}
#: Prefixes of paths that are refused, and why.
_NEVER_BELOW = {path.partition("{")[0]: reason for path, reason in _NEVER.items() if "{" in path}
_SLOT_FILES = frozenset({"save", "restore"})


def refusal(path: str, query: str) -> str | None:
    """Return why a path at llama-server is not even for administrators, or ``None``.

    Paths are compared as llama-server (cpp-httplib) understands them: percent-decoded.
    """
    plain = "/" + posixpath.normpath(unquote(path)).lstrip("/")
    if (reason := _NEVER.get(plain)) is not None:
        return reason
    for start, reason in _NEVER_BELOW.items():
        if plain.startswith(start):
            return reason
    if plain.startswith("/slots/"):
        actions = {value for name, value in parse_qsl(query) if name == "action"}
        if actions & _SLOT_FILES:
            return "the gateway itself keeps the files of slots"
    return None


def without_key(query: str) -> str:
    """Return a raw query without the client's key, which is nobody else's business."""
    return "&".join(_kept(query))


def renamed(query: str, model: str) -> str:
    """Return a raw query with ``model`` as the model's name, where it names one."""
    return "&".join(
        f"model={quote(model, safe='')}" if unquote(field.partition("=")[0]) == "model" else field
        for field in query.split("&")
    )


def _kept(query: str) -> Iterator[str]:
    for field in query.split("&"):
        if field and unquote(field.partition("=")[0]) != "authKey":
            yield field
