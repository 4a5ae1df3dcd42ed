"""llama-server's router API, so that clients of it work here, above all its own web UI.

See llama.cpp's README, "Using multiple models". The models are those of models.json; loading and
unloading ask for an admin key. That web UI lists models by ``GET /v1/models``, never by
``GET /models``, which here keeps the array of names that clients of the old system read.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from functools import partial

import orjson
from aiohttp import web

from gateway import __version__
from gateway.access.principal import Principal
from gateway.api.choosing import resolve
from gateway.api.listing import Listing
from gateway.backends.backend import State
from gateway.backends.model_details import ModelDetails, status_of
from gateway.backends.scheduler import Scheduler
from gateway.config.settings import Settings
from gateway.error_log import ErrorLog
from gateway.errors import BadRequest, GatewayError, Unavailable
from gateway.http.json_response import json_response
from gateway.library import Library
from gateway.pipeline.events import Board, endless
from gateway.pipeline.reading import json_body
from gateway.pipeline.request_context import CONTEXT
from gateway.pipeline.route import Routes, Row
from gateway.proxy.resolve import model_name
from gateway.scope import Scope
from gateway.tasks import spawn


class RouterHandlers:
    """Loads and unloads models, and tells of their changes, as llama-server's router does."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        scheduler: Scheduler,
        listing: Listing,
        details: ModelDetails,
        board: Board,
        errors: ErrorLog,
    ) -> None:
        self._settings = settings
        self._library = library
        self._scheduler = scheduler
        self._listing = listing
        self._details = details
        self._board = board
        self._errors = errors

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (
            Row("POST", "/models/load", self.load, Scope.ADMIN),
            Row("POST", "/models/unload", self.unload, Scope.ADMIN),
            Row("GET", "/models/sse", self.events, Scope.CHAT, counts=False),
        )

    async def load(self, request: web.Request) -> web.Response:
        """POST /models/load ``{model}``: begin to load it; how that goes is told by /models/sse."""
        scheduler = self._scheduler
        name = await _named(request)
        backend = scheduler.backend(name)
        if backend is not None and backend.state in (State.STARTING, State.READY):
            raise BadRequest(f"the model {name!r} is loaded already", code="model_already_loaded")
        spawn(self._load(name, request[CONTEXT].id), name=f"load {name} for a client")
        return json_response({"success": True})

    async def unload(self, request: web.Request) -> web.Response:
        """POST /models/unload ``{model}``: begin to drain and unload it, or end its loading."""
        library, scheduler = self._library, self._scheduler
        name = await _named(request)
        if status_of(scheduler.backend(name)) in ("unloaded", "failed"):
            raise BadRequest(f"the model {name!r} is not loaded", code="model_not_loaded")
        library.choices.unloaded(name)
        spawn(scheduler.unload(name), name=f"unload {name} for a client")
        return json_response({"success": True})

    async def _load(self, name: str, request_id: str) -> None:
        try:
            await self._scheduler.load(name)
        except Unavailable:
            pass  # unloaded meanwhile, or the gateway is stopping
        except GatewayError as error:
            self._errors.add(error.message, code=error.code, model=name, request_id=request_id)

    async def props(self, request: web.Request) -> web.Response:
        """GET /props without a model: that this is a router.

        Clients read a number from how ``build_info`` begins: it is that of the llama-server.
        """
        models = {spec.name for _, spec, _ in self._listing.visible(request[CONTEXT].principal)}
        build = await self._details.build()
        return json_response(
            {
                "role": "router",
                "max_instances": self._settings.scheduler.max_loaded or len(models),
                "models_autoload": True,
                "model_alias": "llm-gateway",
                "model_path": "none",
                "default_generation_settings": {"params": {}, "n_ctx": 0},
                "ui_settings": {},
                "build_info": f"{build} llm-gateway {__version__}",
                "cors_proxy_enabled": False,
            }
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET /models/sse: an event for every change of a model's status, as a router sends them.

        ``{"model": NAME, "event": "model_status", "data": {"status": "loading"}}`` when a load
        begins, ``status_change`` for every other, ``{"model": "*", "event": "models_reload"}`` when
        models.json has changed. Virtual models have events of their own.
        """
        return await endless(request, self._events(request))

    async def _events(self, request: web.Request) -> AsyncGenerator[str, None]:
        board, principal = self._board, request[CONTEXT].principal
        view = ("models", principal.models, principal.personalities)
        look = partial(self._statuses, principal)
        before: dict[str, str] | None = None
        async with contextlib.aclosing(board.turns()) as turns:
            async for _ in turns:
                now = board.seen(view, look)
                if before is not None:
                    # Who has seen the last turn has the same ``before``, which is here as long
                    # as this.
                    change = ("changes", id(before), id(now))
                    for event in board.seen(change, partial(_changes, before, now)):
                        yield event
                before = now

    def _statuses(self, principal: Principal) -> dict[str, str]:
        scheduler = self._scheduler
        return {
            name: status_of(scheduler.backend(spec.name))
            for name, spec, personality in self._listing.visible(principal)
            if spec.lists(personality)
        }


async def _named(request: web.Request) -> str:
    """Return the model that the body names, perhaps by an alias or as a virtual model."""
    body = await json_body(request)
    name = model_name(body.get("model"))
    if not name:
        raise BadRequest("`model` is missing: the name of a model", param="model")
    target = await resolve(request[CONTEXT], {"model": name}, anew=True)
    return target.name


def _changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    changes: list[dict[str, object]] = []
    if before.keys() != now.keys():
        changes.append({"model": "*", "event": "models_reload"})
    for name, status in now.items():
        if before.get(name, "unloaded") != status:
            kind = "model_status" if status == "loading" else "status_change"
            changes.append({"model": name, "event": kind, "data": {"status": status}})
    return [orjson.dumps(change).decode() for change in changes]
