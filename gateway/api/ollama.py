"""Ollama's routes that a model answers: chats, completions and embeddings.

Each request becomes one of OpenAI's, or of llama-server's own, and goes its way from there: the
same limits, costs, queue, conversations and heartbeats. What comes back is said in Ollama's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from gateway.api.choosing import resolve
from gateway.api.inference import JsonRoute, send
from gateway.api.ollama_cutting import cut_to_fit
from gateway.errors import BadRequest, ModelNotFound
from gateway.http.request import Request
from gateway.http.response import Answer, BufferedResponse
from gateway.ollama.answers import Clock, Gathered, Lines, Shape
from gateway.ollama.embeddings import Vectors
from gateway.ollama.models import cannot_think
from gateway.ollama.requests import CHAT, EMBEDDINGS, INFILL, RAW, Asked, translate
from gateway.pipeline.metered import Metered
from gateway.pipeline.reading import adapted, no_json
from gateway.pipeline.request_context import CommonHandler, RequestContext
from gateway.pipeline.route import Routes, Row
from gateway.proxy.body import JsonObject, NotJson, serialise
from gateway.proxy.call import Call
from gateway.proxy.dialect import OLLAMA
from gateway.proxy.routes import route_at
from gateway.scope import Scope
from gateway.workers import WORKERS

_JSON: Final = (("Content-Type", "application/json; charset=utf-8"),)
#: The code of the error for a text that is too long for its model.
_TOO_LONG: Final = "context_length_exceeded"
#: The routes that take what a request becomes, by their path.
_ROUTES: Final[Mapping[str, JsonRoute]] = {
    path: JsonRoute(route_at("POST", path)) for path in (CHAT, RAW, INFILL, EMBEDDINGS)
}


class OllamaRoute:
    """What answers the requests of the route ``/api/KIND``.

    A :data:`gateway.pipeline.request_context.CommonHandler`.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._path = f"/api/{kind}"

    async def __call__(self, request: Request, context: RequestContext) -> Answer:
        """Answer ``request``."""
        clock = Clock()
        raw = await request.body()
        most = context.services.limits.request.values
        try:
            made: tuple[Asked, Any] = await WORKERS.run(translate, raw, self._kind, most)
        except NotJson as error:
            raise no_json(request.headers, error) from None
        asked, body = made
        del raw, made
        try:
            if not asked.path:
                return await self._without_answer(context, asked)
            call = await _ROUTES[asked.path].ready(request, context, body)
        except ModelNotFound as error:
            raise not_found(asked.model, error) from None
        if asked.thinks:
            await _refuse_thoughtless(context, call.model, asked)
        if not asked.truncate:
            del body
        try:
            answer, outcome = await self._answer(request, context, asked, call, clock)
            if asked.truncate and outcome.code == _TOO_LONG:
                assert isinstance(answer, BufferedResponse)
                with context.services.standing.watching(context):
                    cut = await cut_to_fit(context.services.scheduler, call, body, answer.body)
                if cut is not None:
                    again = await _ROUTES[asked.path].ready(request, context, cut)
                    answer, _ = await self._answer(request, context, asked, again, clock)
            return answer
        finally:
            _keep(context, call.model, asked)

    async def _answer(
        self, request: Request, context: RequestContext, asked: Asked, call: Call, clock: Clock
    ) -> tuple[Answer, Metered]:
        embeds = asked.path == EMBEDDINGS
        streamed = asked.stream and not embeds
        client = context.services.proxies.client(request)
        outcome = Metered(context, self._path, "POST", client, streamed=streamed)
        clock.loading = lambda: outcome.loading
        call.dialect, call.stream, call.rewrite = OLLAMA, streamed, None
        if embeds:
            new = partial(
                Vectors, asked.model, clock, asked.dimensions, alone=self._kind == "embeddings"
            )
            call.flow, call.rewrite = new, new().whole
        else:
            shape = Shape(asked.model, self._kind == "chat", asked.before)
            gathered = Gathered(shape, clock)
            call.rewrite = gathered.rewritten
            if streamed:
                call.mender = Lines(shape, clock)
            else:
                call.gathers = lambda: gathered
        return await send(request, context, call, outcome), outcome

    async def _without_answer(self, context: RequestContext, asked: Asked) -> BufferedResponse:
        """Load the model, or unload it with ``"keep_alive": 0``: that is what is asked for by
        nothing to answer.
        """
        named = {"model": asked.model, "personality": asked.personality}
        target = await resolve(context, named)
        reason = "unload" if asked.keep_alive == 0 else "load"
        if reason == "load":
            with context.services.standing.watching(context):
                await context.services.scheduler.load(target.name, explicit=False)
        _keep(context, target.name, asked)
        return BufferedResponse(200, _JSON, serialise(self._nothing(asked, reason)))

    def _nothing(self, asked: Asked, reason: str) -> JsonObject:
        if self._kind == "embeddings":
            return {"embedding": []}
        if self._kind == "embed":
            return {"model": asked.model, "embeddings": []}
        return Shape(asked.model, self._kind == "chat").empty(reason)


async def _refuse_thoughtless(context: RequestContext, model: str, asked: Asked) -> None:
    """Raise :class:`BadRequest` if the model is told to think, and can't."""
    services = context.services
    spec = services.library.catalog.models.get(model)
    if spec is None:
        return
    header = await services.headers.whole(spec.file) if spec.file else None
    if cannot_think(spec, header):
        raise BadRequest(f'"{_printable(asked.model)}" does not support thinking', param="think")


def _keep(context: RequestContext, model: str, asked: Asked) -> None:
    """Keep ``model`` loaded for as long as was asked for, and as the operator allows.

    Administrators may keep it longer, and unload what others of them have loaded. Either way it
    makes room for another that is asked for.
    """
    if asked.keep_alive is not None:
        admin = context.principal.may(Scope.ADMIN)
        context.services.scheduler.keep(model, asked.keep_alive, admin=admin)


def not_found(model: str, error: ModelNotFound) -> ModelNotFound:
    """Return ``error`` in the words that Ollama's clients know."""
    return ModelNotFound(
        f'model "{_printable(model)}" not found, try pulling it first: an administrator can, by a '
        f"name like hf.co/OWNER/REPO:QUANT ({error.public})",
        code=error.code,
        param=error.param,
    )


def _printable(name: str) -> str:
    return name[:200].encode("utf-8", "backslashreplace").decode()


#: The POST routes that a model answers, by path.
OLLAMA_ROUTES: Final[dict[str, CommonHandler]] = {
    f"/api/{kind}": OllamaRoute(kind) for kind in ("chat", "generate", "embed", "embeddings")
}


class OllamaHandlers:
    """Ollama's routes that a model answers."""

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        for path, handler in OLLAMA_ROUTES.items():
            yield Row("POST", path, _by_aiohttp(handler), Scope.OLLAMA)


def _by_aiohttp(handler: CommonHandler) -> Any:
    """Return ``handler`` for requests that aiohttp serves."""

    async def handle(request: Any) -> Answer:
        return await handler(*adapted(request))

    return handle
