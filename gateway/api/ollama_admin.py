"""Ollama's routes that fetch models and remove them, for administrators."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from aiohttp import web

from gateway.api.admin_pulls import PullHandlers
from gateway.api.choosing import resolve
from gateway.api.ollama import not_found
from gateway.backends.pulls import Pull, Pulls
from gateway.entries import Entries
from gateway.errors import BackendError, BadRequest, ModelNotFound
from gateway.http.json_response import json_response
from gateway.library import Library
from gateway.ollama.pulling import MANIFEST, SUCCESS, lines_of, repository, why
from gateway.ollama.requests import is_streamed, model_in
from gateway.pipeline.events import Board
from gateway.pipeline.reading import json_body
from gateway.pipeline.request_context import CONTEXT
from gateway.pipeline.route import Routes, Row
from gateway.proxy.body import JsonObject, serialise
from gateway.proxy.headers import STREAM_HEADERS
from gateway.scope import Scope
from gateway.streams.kinds import LINES

_HEADERS: Final = {"Content-Type": LINES, **dict(STREAM_HEADERS)}


class OllamaAdminHandlers:
    """Fetches models from the hub, and removes their entries."""

    def __init__(
        self, library: Library, entries: Entries, pulling: PullHandlers, pulls: Pulls
    ) -> None:
        self._library = library
        self._entries = entries
        self._pulling = pulling
        self._board = Board(pulls)

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        yield Row("POST", "/api/pull", self.pull, Scope.ADMIN)
        yield Row("DELETE", "/api/delete", self.delete, Scope.ADMIN)

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """POST /api/pull ``{model, stream?}``: fetch ``hf.co/OWNER/REPO[:QUANT]`` from the hub.

        A model that there is counts as fetched. A client that leaves doesn't end the pull.
        """
        body = await json_body(request)
        name, streamed = model_in(body), is_streamed(body)
        await self._library.refresh()
        known = self._library.resolver.knows(name.removesuffix(":latest"))
        pull = None if known else await self._pulling.begin({"model": repository(name)})
        lines = self._lines(pull)
        async with contextlib.aclosing(lines):
            if streamed:
                return await _streamed(request, lines)
            async for _ in lines:
                pass
        if pull is not None and pull.stage != "done":
            raise BackendError(why(pull), code="pull_failed")
        return json_response(SUCCESS)

    async def _lines(self, pull: Pull | None) -> AsyncGenerator[JsonObject, None]:
        """Yield the progress of ``pull`` until it has ended; None: there is nothing to fetch."""
        yield MANIFEST
        if pull is None:
            yield SUCCESS
            return
        before = [MANIFEST]
        async with contextlib.aclosing(self._board.turns()) as turns:
            async for _ in turns:
                over, told = pull.over, lines_of(pull)
                if told != before and (over or pull.stage not in ("done", "failed", "ended")):
                    for line in told:
                        yield line
                    before = told
                if over:
                    return

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /api/delete ``{model}``: take a model out of models.json. Its file stays."""
        context = request[CONTEXT]
        name = model_in(await json_body(request))
        await self._library.refresh()
        try:
            target = await resolve(context, {"model": name}, anew=True)
        except ModelNotFound as error:
            raise not_found(name, error) from None
        if target.asked:
            raise BadRequest(
                f"{name[:200]!r} is a personality: it is changed in the entry of its model",
                param="model",
            )
        by = f"the key {context.principal.key_id}"
        await self._entries.change(target.spec.name, lambda _before: None, by=by)
        return web.Response(status=200)


async def _streamed(
    request: web.Request, lines: AsyncGenerator[JsonObject, None]
) -> web.StreamResponse:
    """Send ``lines`` as they come. The end of the gateway doesn't wait for their end."""
    context = request[CONTEXT]
    standing, lifecycle = context.services.standing, context.services.lifecycle
    response = web.StreamResponse(headers=_HEADERS)
    ending = standing.hold(context)
    lifecycle.leave()
    try:
        await response.prepare(request)
        async for line in lines:
            await response.write(serialise(line) + b"\n")
    except asyncio.CancelledError as broke:
        if (error := ending.meaning(broke)) is None:
            raise
        await response.write(serialise({"error": context.tell(error).public}) + b"\n")
    finally:
        lifecycle.enter()
        standing.done(ending)
    await response.write_eof()
    return response
