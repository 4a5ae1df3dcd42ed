"""GET and DELETE /admin/cache: conversations that are saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from gateway.access.gate import KeyGate
from gateway.access.principal import WITHOUT_KEY
from gateway.conversations.counts import NO_CACHE, shown
from gateway.errors import BadRequest, ModelNotFound, NotFound
from gateway.http.json_response import json_response
from gateway.library import Library
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope
from gateway.spelling import did_you_mean

if TYPE_CHECKING:
    from gateway.conversations.keeper import Conversations

_CHOICES = ("key", "model")


class CacheHandlers:
    """Shows and removes what is saved of conversations."""

    def __init__(
        self, conversations: Conversations | None, library: Library, gate: KeyGate
    ) -> None:
        self._conversations = conversations
        self._library = library
        self._gate = gate

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (
            Row("GET", "/admin/cache", self.show, Scope.ADMIN),
            Row("DELETE", "/admin/cache", self.clear, Scope.ADMIN),
        )

    async def show(self, request: web.Request) -> web.Response:
        """GET /admin/cache: what is saved of conversations, by model and by key.

        And what that has spared since the start. Without ``cache.enabled`` there is nothing.
        """
        conversations = self._conversations
        report = await conversations.report() if conversations is not None else NO_CACHE
        return json_response(shown(report, self._name_of, enabled=conversations is not None))

    def _name_of(self, key: str) -> str | None:
        name, ring = WITHOUT_KEY.get(key), self._gate.ring
        return ring.name_of(key) if name is None and ring is not None else name

    async def clear(self, request: web.Request) -> web.Response:
        """DELETE /admin/cache: remove saved conversations; all, or a key's, or a model's.

        ``?key=ID`` and ``?model=NAME``. What is in the slots of models now isn't saved either,
        until it is gone on with. ``removed``: how many files that were. Without ``cache.enabled``
        there are none.
        """
        if unknown := set(request.query) - {*_CHOICES, "authKey"}:
            raise BadRequest(
                f"there is no `{min(unknown)[:100]}` here: `key` and `model` may be given",
                param=min(unknown)[:100],
            )
        key, model = (request.query.get(name) for name in _CHOICES)
        conversations = self._conversations
        removed = await conversations.clear(key, model) if conversations is not None else 0
        if not removed:
            self._check(key, model)
        return json_response({"removed": removed})

    def _check(self, key: str | None, model: str | None) -> None:
        """Refuse names of nothing, for which nothing is saved either.

        A model that models.json doesn't have any more may have left something.
        """
        models = self._library.catalog.models
        if model is not None and model not in models:
            raise ModelNotFound(
                f"there is no model {model[:100]!r}, and nothing is saved of one"
                f"{did_you_mean(model, models)}",
                param="model",
            )
        ring = self._gate.ring
        if key is None or key in WITHOUT_KEY or ring is None or ring.lookup.is_known(key):
            return
        raise NotFound(  # without the text, which may be a key itself
            "there is no key with that id: `llm-gateway keys list` shows them",
            code="key_not_found",
            param="key",
        )
