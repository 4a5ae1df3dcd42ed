"""The machines of the cluster: which there are, and what may run on them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.backends.machine_report import nodes_report
from gateway.backends.nodes import Nodes, UnknownNode
from gateway.config.settings import Settings
from gateway.http.json_response import json_response
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope


class NodeHandlers:
    """Lists nodes, lets them take models or not, and forgets them."""

    def __init__(self, settings: Settings, nodes: Nodes | None) -> None:
        self._settings = settings.cluster
        self._nodes = nodes

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (
            Row("GET", "/admin/nodes", self.list_nodes, Scope.ADMIN),
            Row("POST", "/admin/nodes/{name}/drain", self.drain, Scope.ADMIN),
            Row("POST", "/admin/nodes/{name}/resume", self.resume, Scope.ADMIN),
            Row("DELETE", "/admin/nodes/{name}", self.remove, Scope.ADMIN),
        )

    async def list_nodes(self, request: web.Request) -> web.Response:
        """GET /admin/nodes: each machine that has joined the cluster, its devices, and what runs
        there; ``cluster`` is null where this gateway has none.
        """
        return json_response({"cluster": self._cluster(), "nodes": nodes_report(self._nodes)})

    async def drain(self, request: web.Request) -> web.Response:
        """POST /admin/nodes/NAME/drain: let it take no more models, also after a restart.

        What runs there finishes its requests; what was loaded is loaded again on another machine.
        """
        nodes, name = self._known(request)
        await nodes.drain(name)
        return json_response(_reports(nodes).get(name))

    async def resume(self, request: web.Request) -> web.Response:
        """POST /admin/nodes/NAME/resume: let it take models again."""
        nodes, name = self._known(request)
        await nodes.resume(name)
        return json_response(_reports(nodes).get(name))

    async def remove(self, request: web.Request) -> web.Response:
        """DELETE /admin/nodes/NAME: drain it, and forget it when nothing runs there any more.

        It may join again.
        """
        nodes, name = self._known(request)
        before = _reports(nodes).get(name)
        await nodes.remove(name)
        return json_response(before)

    def _known(self, request: web.Request) -> tuple[Nodes, str]:
        name = request.match_info["name"]
        if self._nodes is None:
            raise UnknownNode(
                f"there is no node {name[:63]!r}: this gateway has no cluster in gateway.yaml"
            )
        return self._nodes, name

    def _cluster(self) -> dict[str, Any] | None:
        settings, nodes = self._settings, self._nodes
        if settings is None or nodes is None:
            return None
        return {
            "engine": settings.engine,
            "address": settings.address,
            "placement": settings.placement,
            "problem": nodes.head_problem,
        }


def _reports(nodes: Nodes) -> dict[str, Any]:
    return {report["name"]: report for report in nodes_report(nodes)}
