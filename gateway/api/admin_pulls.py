"""Pulls from the hub over HTTP, as ``llm-gateway pull`` does them on the command line: to this
machine, or by a node of the cluster to that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from gateway.backends.nodes import known_node
from gateway.backends.pulls import Pull, Pulls, PullWish
from gateway.config.settings import Settings
from gateway.errors import BadRequest, CatalogBroken
from gateway.http.json_response import json_response
from gateway.names import HERE
from gateway.pipeline.events import Board, endless
from gateway.pipeline.reading import json_body, refuse_unknown
from gateway.pipeline.route import Routes, Row
from gateway.problems import InvalidFiles
from gateway.scope import Scope

if TYPE_CHECKING:
    from gateway.backends.pulls_on_nodes import PullsOnNodes

#: Field of the body -> its type.
_FIELDS: Final = {
    "model": str,
    "revision": str,
    "name": str,
    "entry": bool,
    "replace": bool,
    "node": str,
}


class PullHandlers:
    """Lists, begins and ends pulls from the hub. ``on_nodes``: None without a cluster."""

    def __init__(self, settings: Settings, pulls: Pulls, on_nodes: PullsOnNodes | None) -> None:
        self._settings = settings
        self._pulls = pulls
        self._on_nodes = on_nodes
        self._board = Board(pulls)

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (
            Row("GET", "/admin/pulls", self.list_pulls, Scope.ADMIN),
            Row("POST", "/admin/pulls", self.begin_pull, Scope.ADMIN),
            Row("DELETE", "/admin/pulls/{id}", self.end_pull, Scope.ADMIN),
        )

    async def list_pulls(self, request: web.Request) -> web.StreamResponse:
        """GET /admin/pulls: what is fetched from the hub, and what was; as events, if asked for.

        With ``Accept: text/event-stream`` each event has all of it, at once and after every change.
        """
        if "text/event-stream" in request.headers.get("Accept", ""):
            return await endless(request, self._events())
        return json_response({"pulls": self._pulls.reports()})

    async def _events(self) -> AsyncGenerator[str, None]:
        board, pulls = self._board, self._pulls

        def look() -> str:
            return orjson.dumps({"pulls": pulls.reports()}).decode()

        before = ""
        async with contextlib.aclosing(board.turns()) as turns:
            async for _ in turns:
                if (now := board.seen("pulls", look)) != before:
                    yield now
                before = now

    async def begin_pull(self, request: web.Request) -> web.Response:
        """POST /admin/pulls ``{model, ...}``: begin to fetch ``OWNER/REPO[:QUANT]`` from the hub.

        202 with the pull, which GET tells more of; the same again while it runs is the one there
        is. Without QUANT it takes what fits best. ``name`` is that of its entry in models.json,
        none is written with ``"entry": false``; ``replace`` fetches what is here and differs from
        the hub's. ``node`` names the machine of the cluster that fetches it, for itself.
        """
        pull = await self.begin(await _fields(request))
        return json_response(pull.report(), status=202)

    async def begin(self, fields: dict[str, Any]) -> Pull:
        """Begin the pull that ``fields`` of a body ask for, or return the one that runs already.

        Raises :class:`BadRequest`, :class:`CatalogBroken`, and what :meth:`Pulls.begin` and
        :meth:`PullsOnNodes.begin` do.
        """
        # What few gateways ever need is imported where they do.
        from gateway.backends import pulled
        from gateway.backends.pull_process import Job, as_text
        from gateway.models.hub import check_revision, parse_reference

        model = str(parse_reference(fields["model"]))
        revision = fields.get("revision")
        if revision is not None:
            check_revision(revision)
        node = fields.get("node", HERE)
        known_node(None if self._on_nodes is None else self._on_nodes.nodes, node)
        wish = PullWish(**{**_without_node(fields), "model": model})
        settings, pulls = self._settings, self._pulls
        wanted = settings.scheduler.memory_budget
        budget = None if wanted == "auto" else wanted
        place = pulled.PullPlace(
            settings.llm_storage, settings.models_file, settings.llama_server, budget
        )
        try:
            await asyncio.to_thread(
                pulled.check, place, wish.name, entry=wish.entry, here=node == HERE
            )
        except InvalidFiles as error:
            raise CatalogBroken(
                "models.json is broken: mend it first.", detail=str(error)
            ) from None
        if node != HERE:
            assert self._on_nodes is not None
            return await self._on_nodes.begin(node, wish)
        if (running := pulls.running(model, revision)) is not None:
            return running
        job = Job(
            **asdict(wish),
            storage=str(place.storage),
            models_file=str(place.models_file),
            llama_server=place.llama_server,
            budget=budget,
        )
        return pulls.begin(model, revision, as_text(job))

    async def end_pull(self, request: web.Request) -> web.Response:
        """DELETE /admin/pulls/ID: end it, or take one that has ended off the list.

        Downloaded parts stay, so that the next pull can resume, unless ``?discard=true``.
        """
        text = request.query.get("discard", "false").lower()
        if text not in ("true", "1", "false", "0"):
            raise BadRequest("`discard` must be true or false", param="discard")
        pull = await self._pulls.end(request.match_info["id"], discard=text in ("true", "1"))
        return json_response(pull.report())


def _without_node(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "node"}


async def _fields(request: web.Request) -> dict[str, Any]:
    body = await json_body(request)
    refuse_unknown(body, _FIELDS)
    if "model" not in body:
        raise BadRequest("`model` is missing: OWNER/REPO or OWNER/REPO:QUANT", param="model")
    for name, value in body.items():
        if not isinstance(value, _FIELDS[name]):
            what = "a text" if _FIELDS[name] is str else "true or false"
            raise BadRequest(f"`{name}` must be {what}", param=name)
    return dict(body)
