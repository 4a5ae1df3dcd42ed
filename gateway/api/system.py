"""GET /admin/system: the gateway, its machine, and everything that is wrong there."""

from __future__ import annotations

from aiohttp import web

from gateway.http.json_response import json_response
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope
from gateway.system_report import SystemReport


class SystemHandlers:
    """Shows the state of the gateway and its machine."""

    def __init__(self, system: SystemReport) -> None:
        self._system = system

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (Row("GET", "/admin/system", self.system_report, Scope.ADMIN),)

    async def system_report(self, request: web.Request) -> web.Response:
        """GET /admin/system: versions, paths, addresses, devices, disks, certificate, and
        `problems`.

        Those are what `llm-gateway check` lists, and what of `doctor` asks nobody: each with its
        `level`, a `message` and, as far as there is one, the file, the line in it, the key, and
        what to do. Versions and problems are looked for every few seconds at most.
        """
        return json_response(await self._system.make())
