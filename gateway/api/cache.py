"""DELETE /admin/cache: conversations that are saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from gateway.errors import BadRequest
from gateway.http.json_response import json_response
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope

if TYPE_CHECKING:
    from gateway.conversations.keeper import Conversations

_CHOICES = ("key", "model")


class CacheHandlers:
    """Removes what is saved of conversations."""

    def __init__(self, conversations: Conversations | None) -> None:
        self._conversations = conversations

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (Row("DELETE", "/admin/cache", self.clear, Scope.ADMIN),)

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
        return json_response({"removed": removed})
