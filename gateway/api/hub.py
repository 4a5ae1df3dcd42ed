"""GET /admin/hub: what a repository of the hub has, and what of it fits this machine."""

from __future__ import annotations

from aiohttp import web

from gateway.backends.hub_listings import HubListings
from gateway.backends.nodes import Nodes, known_node
from gateway.errors import BadRequest
from gateway.http.json_response import json_response
from gateway.names import HERE
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope


class HubHandlers:
    """Lists what repositories of the hub have."""

    def __init__(self, listings: HubListings, nodes: Nodes | None) -> None:
        self._listings = listings
        self._nodes = nodes

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (Row("GET", "/admin/hub", self.hub_listing, Scope.ADMIN),)

    async def hub_listing(self, request: web.Request) -> web.Response:
        """GET /admin/hub: the quantisations in a repository of the hub, and which fit this machine.

        ``?model=OWNER/REPO``, as `llm-gateway pull` takes it, and ``&revision=``; with ``&node=``
        which fit that machine of the cluster. The answer is what `llm-gateway pull OWNER/REPO
        --json` prints; it may be some seconds old.
        """
        from gateway.models.hub import check_revision, parse_reference
        from gateway.models.hub_client import check_installed

        given = request.query.get("model", "")
        if not given:
            raise BadRequest("`model` is missing: OWNER/REPO", param="model")
        reference = parse_reference(given)
        revision = request.query.get("revision") or None
        if revision is not None:
            check_revision(revision)
        node = known_node(self._nodes, request.query.get("node", HERE))
        check_installed()
        return json_response(await self._listings.get(reference.repository, revision, node))
