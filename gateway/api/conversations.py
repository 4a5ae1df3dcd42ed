"""OpenAI's Conversations: what is said with several requests, kept under one id."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

from gateway.api.paging import Page
from gateway.errors import BadRequest, NotFound
from gateway.http.response import BufferedResponse
from gateway.pipeline.reading import json_body
from gateway.pipeline.request_context import CONTEXT
from gateway.pipeline.route import Routes, Row
from gateway.proxy.body import serialise
from gateway.responses.conversations import KeptConversations, items_of
from gateway.responses.kept import KeptResponses
from gateway.scope import Scope

_ONE: Final = "/v1/conversations/{conversation_id}"
_ITEM: Final = _ONE + "/items/{item_id}"


class ConversationHandlers:
    """Makes, reads and changes conversations, which are kept where ``responses`` are."""

    def __init__(self, responses: KeptResponses | None) -> None:
        self._kept_or_none = None if responses is None else KeptConversations(responses)

    def routes(self) -> Routes:
        """Return the rows of its routes. What makes something counts for the limits of its key."""
        yield Row("POST", "/v1/conversations", self.create, Scope.CHAT)
        yield Row("GET", _ONE, self.read, Scope.CHAT, counts=False)
        yield Row("POST", _ONE, self.change, Scope.CHAT)
        yield Row("DELETE", _ONE, self.delete, Scope.CHAT, counts=False)
        yield Row("GET", f"{_ONE}/items", self.items, Scope.CHAT, counts=False)
        yield Row("POST", f"{_ONE}/items", self.add, Scope.CHAT)
        yield Row("GET", _ITEM, self.item, Scope.CHAT, counts=False)
        yield Row("DELETE", _ITEM, self.delete_item, Scope.CHAT, counts=False)

    @property
    def _kept(self) -> KeptConversations:
        if self._kept_or_none is None:
            raise NotFound(
                "no conversations are kept here (`responses.store`)", code="conversation_not_found"
            )
        return self._kept_or_none

    async def create(self, request: web.Request) -> BufferedResponse:
        """POST /v1/conversations: a new one, with ``items`` and ``metadata`` if they are given."""
        kept = self._kept
        body = await json_body(request) if request.body_exists else {}
        items = await asyncio.to_thread(items_of, body.get("items") or [])
        return _json(await kept.create(_key(request), items, body.get("metadata")))

    async def read(self, request: web.Request) -> BufferedResponse:
        """GET /v1/conversations/ID: a conversation without its items."""
        return _json(await self._kept.find(_id(request), _key(request)))

    async def change(self, request: web.Request) -> BufferedResponse:
        """POST /v1/conversations/ID: give it other ``metadata``."""
        kept = self._kept
        body = await json_body(request)
        if "metadata" not in body:
            raise BadRequest("`metadata` is missing", param="metadata")
        return _json(await kept.change(_id(request), _key(request), body["metadata"]))

    async def delete(self, request: web.Request) -> BufferedResponse:
        """DELETE /v1/conversations/ID: forget it. Responses that were given in it stay."""
        id = _id(request)
        await self._kept.delete(id, _key(request))
        return _json({"id": id, "object": "conversation.deleted", "deleted": True})

    async def items(self, request: web.Request) -> BufferedResponse:
        """GET /v1/conversations/ID/items: what was said in it, as a page.

        ``order`` is ``desc`` by default, ``limit`` 1 to 100, ``after`` the id of an item.
        """
        page = Page.of(request)
        return _json(page.cut(await self._kept.items(_id(request), _key(request))))

    async def add(self, request: web.Request) -> BufferedResponse:
        """POST /v1/conversations/ID/items: put ``items`` at its end; the answer is their list."""
        kept = self._kept
        body = await json_body(request)
        items = await asyncio.to_thread(items_of, body.get("items"))
        added = await kept.add(_id(request), _key(request), items)
        return _json(Page(None, len(added) or 1, descending=False).cut(added))

    async def item(self, request: web.Request) -> BufferedResponse:
        """GET /v1/conversations/ID/items/ITEM: one item."""
        return _json(await self._kept.item(_id(request), _item_id(request), _key(request)))

    async def delete_item(self, request: web.Request) -> BufferedResponse:
        """DELETE /v1/conversations/ID/items/ITEM: forget one item.

        The answer is its conversation.
        """
        return _json(await self._kept.delete_item(_id(request), _item_id(request), _key(request)))


def _key(request: web.Request) -> str:
    return request[CONTEXT].principal.key_id


def _id(request: web.Request) -> str:
    return request.match_info["conversation_id"]


def _item_id(request: web.Request) -> str:
    return request.match_info["item_id"]


def _json(value: Any) -> BufferedResponse:
    return BufferedResponse(200, (("Content-Type", "application/json"),), serialise(value))
