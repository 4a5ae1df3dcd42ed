"""GET /metrics: what Prometheus reads."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Final

from aiohttp import web

from gateway.access.gate import KeyGate
from gateway.config.settings import MetricsSettings
from gateway.errors import NotFound
from gateway.history import History
from gateway.http.request import Handler
from gateway.http.response import Answer
from gateway.metrics.loop_lag import LoopLag
from gateway.pipeline.request_context import CONTEXT
from gateway.pipeline.route import Routes, Row
from gateway.pipeline.services import Services
from gateway.scope import Scope

if TYPE_CHECKING:  # few scrape, and the gateway starts without the library
    from gateway.metrics.exposition import Exposition
    from gateway.responses.kept import KeptResponses

#: The formats of an answer: Prometheus's text, and OpenMetrics for who asks for that.
FORMATS: Final = ("text/plain", "application/openmetrics-text")


class MetricsHandlers:
    """Shows the metrics of the gateway; ``of_model`` shows those of one llama-server."""

    def __init__(
        self,
        settings: MetricsSettings,
        services: Services,
        history: History,
        lag: LoopLag,
        of_model: Handler,
        responses: KeptResponses | None,
    ) -> None:
        self._settings = settings
        self._services = services
        self._history = history
        self._lag = lag
        self._of_model = of_model
        self._responses = responses
        self._exposition: Exposition | None = None
        services.accounting.measures.gone = self._is_gone

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (Row("GET", "/metrics", self.metrics, Scope.METRICS),)

    async def metrics(self, request: web.Request) -> Answer:
        """GET /metrics: everything that is counted and measured, for Prometheus.

        ``?backends=1``: with the metrics of each llama-server that runs, as far as it answers soon.
        ``?model=``, for administrators: those of that llama-server alone, as it tells them.
        """
        services = self._services
        if "model" in request.query:
            gate: KeyGate = services.gate
            gate.check(request[CONTEXT].principal, Scope.ADMIN)
            return await self._of_model(request)
        if not self._settings.enabled:
            raise NotFound("metrics are switched off (metrics.enabled)", code="metrics_off")
        exposition = self._exposition or await self._made()
        exposed = await exposition.expose(
            ",".join(request.headers.getall("Accept", ())),
            connections=services.lifecycle.connections(),
            backends=request.query.get("backends", "").lower() in ("true", "1"),
        )
        headers = {"Content-Type": exposed.content_type, "Cache-Control": "no-store"}
        return web.Response(body=exposed.body, headers=headers)

    async def _made(self) -> Exposition:
        """Return the exposition, made at the first scrape. The library takes a while to import."""
        await asyncio.to_thread(importlib.import_module, "gateway.metrics.exposition")
        from gateway.metrics.exposition import Exposition, Sources

        services = self._services
        self._exposition = self._exposition or Exposition(
            Sources(
                services.accounting,
                services.answers,
                services.scheduler,
                self._history,
                services.lifecycle,
                services.tls,
                services.conversations,
                self._responses,
            ),
            self._lag,
        )
        return self._exposition

    def _is_gone(self, model: str, key_id: str) -> bool:
        """Return whether a model is in models.json no more, or a key has been revoked."""
        ring = self._services.gate.ring
        revoked = key_id.startswith("k_") and ring is not None and not ring.lookup.is_known(key_id)
        return revoked or self._services.scheduler.backend(model) is None
