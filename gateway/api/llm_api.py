"""The routes of LLM-API, the Node wrapper this gateway replaces, as its clients know them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from gateway.api.choosing import chosen_by, resolve
from gateway.api.conversation import heed
from gateway.api.inference import JsonRoute
from gateway.backends.backend import State
from gateway.backends.model_status import ModelStatus
from gateway.backends.scheduler import Scheduler
from gateway.error_log import ErrorLog
from gateway.errors import BadRequest, GatewayError
from gateway.http.json_response import json_response
from gateway.library import Library
from gateway.pipeline.events import Board, endless, event_stream, is_due, patience
from gateway.pipeline.metered import Metered
from gateway.pipeline.reading import json_body
from gateway.pipeline.request_context import CONTEXT
from gateway.pipeline.route import Routes, Row
from gateway.proxy.ask import texts
from gateway.proxy.body import serialise
from gateway.proxy.resolve import Active, model_name
from gateway.proxy.routes import route_at
from gateway.scope import Scope
from gateway.tasks import cancel_and_wait, spawn

#: Prepares the bodies of chats.
_CHAT = JsonRoute(route_at("POST", "/v1/chat/completions"))


class LlmApiHandlers:
    """Loads and unloads models, tells the status, and answers single questions."""

    def __init__(
        self, library: Library, scheduler: Scheduler, board: Board, errors: ErrorLog
    ) -> None:
        self._library = library
        self._scheduler = scheduler
        self._board = board
        self._errors = errors

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (
            Row("POST", "/loadModel", self.load_model, Scope.CHAT),
            Row("GET", "/unloadModel", self.unload_model, Scope.ADMIN),
            Row("POST", "/unloadModel", self.unload_model, Scope.ADMIN),
            Row("GET", "/status", self.status, Scope.CHAT, counts=False),
            Row("GET", "/chat/errors", self.chat_errors, Scope.ADMIN),
            Row("GET", "/chat/ask", self.chat_ask, Scope.CHAT),
        )

    async def load_model(self, request: web.Request) -> web.Response:
        """POST /loadModel ``{model, personality?}``: load it, and make both the key's active
        choice.

        An administrator's is that of every key that chose none. Other keys may load what they may
        use, on the terms of any request: in the queue, within the key's limits, and without
        starting a model again that failed too often. A load that fails costs nothing, and changes
        no choice.
        """
        body = await json_body(request)
        context, library = request[CONTEXT], self._library
        name = model_name(body.get("model"))
        if not name:
            raise BadRequest(
                "`model` is missing: the name of a model in models.json", param="model"
            )
        await library.refresh()
        target = await resolve(context, body, anew=True)
        principal, admin = context.principal, context.principal.may(Scope.ADMIN)
        with context.services.standing.watching(context):
            await self._scheduler.load(target.name, explicit=admin)
        active = Active(target.name, target.personality)
        library.choices.choose(principal.key_id, active, admin=admin)
        message = f"Model {target.name} loaded"
        if target.personality is not None:
            message += f" with personality {target.personality}"
        return json_response({"message": f"{message}."})

    async def unload_model(self, request: web.Request) -> web.Response:
        """GET or POST /unloadModel: unload the active model, or ``?model=`` (also in the body)."""
        library, scheduler = self._library, self._scheduler
        name = request.query.get("model")
        if request.can_read_body:
            said = model_name((await json_body(request, or_query=True)).get("model"))
            name = said if name is None else name
        if name:
            name = library.resolver.resolve(name).spec.name
        elif (chosen := library.choices.common) is not None:
            name = chosen.model
        elif len(loaded := scheduler.loaded()) == 1:
            name = loaded[0]  # loaded by a request: the only one that can be meant
        if name:
            request[CONTEXT].model = name
            library.choices.unloaded(name)
            await scheduler.unload(name)
        return json_response({"message": "Model unloaded."})

    async def status(self, request: web.Request) -> web.StreamResponse:
        """GET /status: Server-Sent Events, one at once and one after every change.

        A change of numbers alone is told every few seconds. A key sees the models that it may use.
        ``models_file_error`` is null while models.json is in order, ``machine_problem`` while no
        GPU is missed; ``degraded`` are the models that run on the CPU though they should not.
        """
        return await endless(request, self._status_events(request), event="message")

    async def _status_events(self, request: web.Request) -> AsyncGenerator[str, None]:
        principal, board, library = request[CONTEXT].principal, self._board, self._library
        told, told_at = _Event(None, ""), 0.0
        async with contextlib.aclosing(board.turns()) as turns:
            async for _ in turns:
                view = _View(
                    principal.may(Scope.ADMIN), principal.models, chosen_by(principal, library)
                )
                event = board.seen(view, partial(self._status_event, view))
                if event.essence != told.essence or (event.text != told.text and is_due(told_at)):
                    told, told_at = event, time.monotonic()
                    yield event.text

    def _status_event(self, view: _View) -> _Event:
        event = self._status(view)
        return _Event(_essence(event), orjson.dumps(event).decode())

    def _status(self, view: _View) -> dict[str, Any]:
        library, scheduler = self._library, self._scheduler
        admin, allowed, chosen = view
        statuses = self._board.seen("statuses", scheduler.status)
        if allowed is not None:
            statuses = [s for s in statuses if s.name in allowed]
        active = chosen.model if chosen is not None else None
        if not admin:
            models = library.catalog.models
            hidden = {name for name, spec in models.items() if spec.meta.unlisted} - {active}
            statuses = [s for s in statuses if s.name not in hidden]

        def failure(model: str) -> str | None:
            backend = scheduler.backend(model)
            error = backend.last_error if backend is not None else None
            if error is None:
                return None
            return error.message if admin else error.public

        word, info = _in_words(statuses, active, failure)
        return {
            "status": word,
            "info": info,
            "models": [s.name for s in statuses if s.state in (State.READY, State.DRAINING)],
            "active": active,
            "personality": chosen.personality if chosen is not None else None,
            "waiting": [_waiting(s) for s in statuses if s.queued or s.state is State.STARTING],
            "models_file_error": library.broken if admin else library.note,
            "machine_problem": scheduler.machine_problem,
            "degraded": [s.name for s in statuses if s.degraded is not None],
        }

    async def chat_errors(self, request: web.Request) -> web.Response:
        """GET /chat/errors: the last backend errors, newest last."""
        return json_response({"errors": list(self._errors.entries)})

    async def chat_ask(self, request: web.Request) -> web.StreamResponse:
        """GET /chat/ask?question=...&stream=...: one question to the active model."""
        question = request.query.get("question", "")
        if not question:
            raise BadRequest("`question` is missing: /chat/ask?question=...", param="question")
        named = {
            key: request.query[key] for key in ("model", "personality") if key in request.query
        }
        body = {**named, "messages": [{"role": "user", "content": question}], "stream": True}
        context = request[CONTEXT]
        # Who asks reads text: the call of a tool would be an empty answer.
        call = await _CHAT.prepare(context, serialise(body), tools=False)
        heed(request.headers, call.turn)
        client, streamed = context.services.proxies.client(request), _is_streamed(request)
        with Metered(context, "/chat/ask", "GET", client, streamed=streamed) as outcome:
            pieces = context.services.standing.within(
                context, texts(self._scheduler, call, outcome)
            )
            async with contextlib.aclosing(pieces):
                response = await _ask(request, question, pieces)
            outcome.status = response.status
            return response


class _View(NamedTuple):
    """Everything that the shown status depends on."""

    admin: bool
    models: frozenset[str] | None
    chosen: Active | None


class _Event(NamedTuple):
    """An event as it is sent, and the part whose change is worth a new event."""

    essence: Any
    text: str


def _waiting(status: ModelStatus) -> dict[str, Any]:
    """Return what a model that loads, or is waited for, does and since when, and its queue.

    Requests in the queue are shown by place and time, without their keys.
    """
    return {
        "model": status.name,
        "stage": status.state,
        "seconds": int(status.state_seconds),
        "percent": None if status.progress is None else int(100 * status.progress),
        "queued": status.queued,
        "longest_wait": int(status.waited or 0),
        "queue": [
            {"position": place, "seconds": int(seconds)}
            for place, seconds in enumerate(status.line, 1)
        ],
    }


def _essence(event: dict[str, Any]) -> Any:
    """Return the part of an event whose change is worth a new event."""
    stages = [(one["model"], one["stage"], one["percent"]) for one in event["waiting"]]
    whole = ("status", "models", "active", "personality", "models_file_error", "machine_problem")
    return *map(event.get, whole), event["degraded"], stages


def _in_words(
    statuses: list[ModelStatus], active: str | None, failure: Callable[[str], str | None]
) -> tuple[str, str]:
    """Return LLM-API's word for the state of all models together, and a sentence about it.

    ``failure`` returns why a model failed.
    """

    def named(*states: State) -> list[ModelStatus]:
        return [s for s in statuses if s.state in states]

    if loading := named(State.STARTING):
        each = ", ".join(f"{s.name} ({int(s.state_seconds)} s)" for s in loading)
        return "Loading", f"Loading {each}{_queue(statuses)}"
    if busy := [s for s in statuses if s.in_flight]:
        running = sum(s.in_flight for s in busy)
        return "Processing", f"{running} running on {_names(busy)}{_queue(statuses)}"
    if broken := [s for s in named(State.FAILED, State.BACKOFF) if active in (None, s.name)]:
        return "Error", failure(broken[0].name) or f"{broken[0].name} failed"
    if ready := named(State.READY, State.DRAINING):
        return "Idle", f"{_names(ready)} loaded{_queue(statuses)}"
    return "Terminated", "No model is loaded"


def _queue(statuses: list[ModelStatus]) -> str:
    waiting = [f"{s.queued} for {s.name}" for s in statuses if s.queued]
    return f"; waiting: {', '.join(waiting)}" if waiting else ""


def _names(statuses: list[ModelStatus]) -> str:
    return ", ".join(s.name for s in statuses)


def _is_streamed(request: web.Request) -> bool:
    return request.query.get("stream", "").lower() in ("true", "1")


async def _ask(
    request: web.Request, question: str, pieces: AsyncGenerator[str, None]
) -> web.StreamResponse:
    if not _is_streamed(request):
        answer = "".join([text async for text in pieces])
        return json_response({"question": question, "response": answer})
    coming = spawn(_next(pieces), name="the first word of an answer")
    try:
        # What goes wrong before something must go out is a plain error.
        await asyncio.wait([coming], timeout=patience(request[CONTEXT]))
        if coming.done() and isinstance(refused := coming.result(), GatewayError):
            raise refused
        async with event_stream(request) as stream:
            text = await coming
            while isinstance(text, str):
                await stream.send(orjson.dumps({"response": text}).decode())
                text = await _next(pieces)
            if text is not None:
                said = request[CONTEXT].tell(text).body()
                await stream.send(orjson.dumps(said).decode(), event="error")
                raise text  # never a clean end
            await stream.send("end", event="end")
            stream.stop_streaming()
        return stream
    finally:
        await cancel_and_wait(coming)


async def _next(pieces: AsyncGenerator[str, None]) -> str | GatewayError | None:
    """Return the next piece, the error that came instead, or ``None`` at the end."""
    try:
        return await anext(pieces, None)
    except GatewayError as error:
        return error
