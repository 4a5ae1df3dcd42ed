"""The one place that puts the gateway together: every service, every route, and what each needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web
from multidict import CIMultiDict

from gateway.access.accounting import Accounting
from gateway.access.body_memory import BodyMemory
from gateway.access.gate import KeyGate
from gateway.access.open_to import OpenNetworks
from gateway.api.admin_keys import AdminKeyHandlers
from gateway.api.admin_models import ModelEntryHandlers
from gateway.api.admin_pulls import PullHandlers
from gateway.api.admin_requests import RequestHandlers
from gateway.api.cache import CacheHandlers
from gateway.api.clients import ClientHandlers
from gateway.api.conversations import ConversationHandlers
from gateway.api.history import HistoryHandlers
from gateway.api.hub import HubHandlers
from gateway.api.listing import Listing, ListingHandlers
from gateway.api.llm_api import LlmApiHandlers
from gateway.api.log import LogHandlers
from gateway.api.metrics import MetricsHandlers
from gateway.api.model_states import ModelStateHandlers
from gateway.api.nodes import NodeHandlers
from gateway.api.ollama import OLLAMA_ROUTES, OllamaHandlers
from gateway.api.ollama_admin import OllamaAdminHandlers
from gateway.api.ollama_models import OllamaModelHandlers
from gateway.api.openapi.handlers import OpenApiHandlers
from gateway.api.overview import StatusHandlers
from gateway.api.own_key import OwnKeyHandlers
from gateway.api.probes import AcmeChallenges, ProbeHandlers
from gateway.api.relayed import RelayedHandlers
from gateway.api.responses import ResponseHandlers, json_routes
from gateway.api.router_mode import RouterHandlers
from gateway.api.schemas import SchemaHandlers
from gateway.api.storage import StorageHandlers
from gateway.api.streams import StreamHandlers
from gateway.api.system import SystemHandlers
from gateway.api.webui import WebUiHandlers
from gateway.backends.backend import Environment
from gateway.backends.facts import Headers
from gateway.backends.hub_listings import HubListings
from gateway.backends.log_requests import no_tasks
from gateway.backends.model_details import ModelDetails
from gateway.backends.process import Records
from gateway.backends.pulls import Pulls
from gateway.backends.scheduler import Scheduler
from gateway.backends.watchdog import Patience
from gateway.backends.webui import WebUi
from gateway.config.settings import Settings
from gateway.entries import Entries
from gateway.error_log import ErrorLog
from gateway.errors import ShuttingDown
from gateway.history import History
from gateway.http.cors import Cors
from gateway.http.fast_listener import FastRoutes
from gateway.http.hosts import Hosts, Proxies
from gateway.http.inherited import Inherited
from gateway.http.lifecycle import Lifecycle
from gateway.http.listeners import Listeners, Site
from gateway.http.refusals import Refusals
from gateway.http.request import Endpoint
from gateway.http.tls_state import TlsState
from gateway.library import Library
from gateway.metrics.loop_lag import LoopLag
from gateway.parts import (
    cluster_of,
    conversations_of,
    limits_of,
    pulls_on_nodes_of,
    responses_of,
)
from gateway.pipeline.edge import Edge
from gateway.pipeline.events import Board
from gateway.pipeline.route import Row
from gateway.pipeline.services import Services
from gateway.pipeline.steps import CachedRoute
from gateway.proxy.routes import dialect_at
from gateway.runtime import Runtime
from gateway.storage_scan import StorageScan
from gateway.streams.kept import KeptStreams
from gateway.system_report import SystemReport
from gateway.tasks import cancel_and_wait, spawn_lasting
from gateway.used_personalities import expect_used
from gateway.web.files import DIST, Files
from gateway.web.page import PageHandlers

if TYPE_CHECKING:
    from gateway.cluster.cluster import Cluster
    from gateway.conversations.keeper import Conversations
    from gateway.responses.kept import KeptResponses

#: Seconds a llama-server gets between SIGTERM and SIGKILL.
STOP_GRACE: Final = 5.0
#: Seconds that streams of responses can be read again after their end, where no others can.
_STREAMS_OF_RESPONSES: Final = 120.0


@dataclass(frozen=True, slots=True)
class Application:
    """Everything that a gateway is made of, put together and not started yet."""

    gate: KeyGate
    accounting: Accounting
    scheduler: Scheduler
    listeners: Listeners
    body_memory: BodyMemory
    conversations: Conversations | None
    responses: KeptResponses | None
    cluster: Cluster | None


def compose(
    settings: Settings,
    library: Library,
    runtime: Runtime,
    records: Records,
    lifecycle: Lifecycle,
    *,
    source: Path | None,
    inherited: Inherited,
    patience: Patience,
) -> Application:
    """Return all services of a gateway, each made with what it needs, in the order of their layers.

    ``source``: the file that ``settings`` are from; ``runtime`` is open, and ``inherited`` are
    sockets that were; ``patience``: how long a llama-server may look as if it hung.
    """
    hosts, proxies = Hosts(settings), Proxies(settings.trusted_proxies)
    open_to = settings.auth.ollama_open_to
    gate = KeyGate(
        settings.auth,
        hosts,
        proxies,
        open_metrics=settings.metrics.without_key,
        ollama_open_to=OpenNetworks(open_to, hosts, proxies, Cors(settings.cors.origins))
        if open_to
        else None,
    )
    gate.controls = inherited.controls | {runtime.control_socket}
    tasks = no_tasks()
    accounting = Accounting(
        tasks=tasks.get,
        keep_requests=settings.accounting.keep_requests,
        max_requests=settings.accounting.max_requests,
        max_requests_size=settings.accounting.max_size,
    )
    cluster = cluster_of(settings)
    conversations = conversations_of(settings, cluster)
    environment = Environment(
        llama_server=settings.llama_server,
        llm_storage=settings.llm_storage,
        runtime_dir=runtime.folder,
        environ=dict(os.environ),
        records=records,
        load_timeout=settings.limits.load_timeout,
        stop_grace=STOP_GRACE,
        patience=patience,
        slot_saves=conversations,
        nodes=cluster,
        several_gateways=settings.store.url is not None,
        metrics=settings.metrics.backends,
        tasks=tasks,
    )
    scheduler = Scheduler(
        library.catalog,
        environment,
        limits_of(settings),
        queue_size=settings.limits.queue_size,
        queue_timeout=settings.limits.queue_timeout,
        idle_unload=settings.scheduler.idle_unload,
        memory_known=False,
    )
    library.changed = scheduler.apply
    if cluster is not None:
        cluster.changed, cluster.found = scheduler.nodes.changed, scheduler.nodes.adopt
        cluster.drained_node, cluster.load = scheduler.nodes.move_off, scheduler.nodes.load_wanted
    if conversations is not None:
        expect_used(conversations, library, accounting, gate)
    responses = responses_of(settings)
    site, body_memory = build_site(
        settings,
        library,
        scheduler,
        gate,
        hosts,
        proxies,
        lifecycle,
        accounting,
        source=source,
        conversations=conversations,
        responses=responses,
    )
    listeners = Listeners(site, settings, runtime.control_socket, inherited)
    lifecycle.connections = lambda: listeners.connections.count
    return Application(
        gate, accounting, scheduler, listeners, body_memory, conversations, responses, cluster
    )


def build_site(
    settings: Settings,
    library: Library,
    scheduler: Scheduler,
    gate: KeyGate,
    hosts: Hosts,
    proxies: Proxies,
    lifecycle: Lifecycle,
    accounting: Accounting,
    *,
    source: Path | None = None,
    conversations: Conversations | None = None,
    responses: KeptResponses | None = None,
) -> tuple[Site, BodyMemory]:
    """Return what is served, and the memory for bodies: routes, and the services of the handlers.

    ``source``: the file that ``settings`` are from.
    """
    services = Services(
        settings,
        accounting=accounting,
        cors=Cors(settings.cors.origins),
        errors=ErrorLog(),
        gate=gate,
        headers=Headers(settings.llm_storage),
        hosts=hosts,
        library=library,
        lifecycle=lifecycle,
        proxies=proxies,
        scheduler=scheduler,
        tls=TlsState(),
        conversations=conversations,
    )
    if responses is not None and services.streams is not None:
        responses.streams = services.streams
    scheduler.died = lambda model, error: services.errors.add(
        error.message, code=error.code, model=model, request_id=None
    )
    lifecycle.give_up = lambda: services.endings.end_all(ShuttingDown)
    background = Background(settings, library, scheduler, accounting, services.streams)
    rows = route_table(settings, services, background, source, responses)
    services.addresses.learn((row.method, row.path) for row in rows)
    app = Edge(services).application(rows)
    app.cleanup_ctx.append(background.run)
    fast = FastRoutes(_finder(services, rows, responses), services.answer_headers, lifecycle)
    refusals = Refusals(services.cors, lambda path, error: dialect_at(path).body(error))

    def redirect(https_port: int) -> web.Application:
        from gateway.redirect import build_redirect  # only with TLS

        return build_redirect(settings, services.tls, https_port)

    return Site(app, fast, services.tls, services.proxies, refusals, redirect), services.body_memory


class Background:
    """The tasks that run beside requests for as long as the application does."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        scheduler: Scheduler,
        accounting: Accounting,
        streams: KeptStreams | None,
    ) -> None:
        environment = scheduler.environment
        self.history = History(scheduler, accounting)
        self.hub = HubListings(settings, environment)
        self.loop_lag = LoopLag()
        self.pulls = Pulls(lambda: environment.for_children, library.refresh)
        self.pulls_on_nodes = pulls_on_nodes_of(settings, environment, self.pulls)
        self.streams = streams
        self.web_ui = WebUi(environment)

    async def run(self, _app: web.Application) -> AsyncIterator[None]:
        """Begin, and end in reverse order: a ``cleanup_ctx`` of the application."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.pulls.close)
            samples = spawn_lasting(self.history.keep, name="take samples of memory and load")
            stack.push_async_callback(cancel_and_wait, samples)
            stack.push_async_callback(self.hub.close)
            stack.callback(self.loop_lag.close)
            if self.streams is not None:
                stack.callback(self.streams.close)
            stack.push_async_callback(self.web_ui.close)
            yield


def route_table(
    settings: Settings,
    services: Services,
    background: Background,
    source: Path | None,
    responses: KeptResponses | None = None,
) -> list[Row]:
    """Return every route: the rows of all groups of handlers, each made with what it needs.

    Where several rows fit a request, aiohttp takes the first.
    """
    gate, accounting, lifecycle = services.gate, services.accounting, services.lifecycle
    library, scheduler, headers = services.library, services.scheduler, services.headers
    errors, tls = services.errors, services.tls
    entries = Entries(settings, library)
    board = Board(scheduler, library)
    details = ModelDetails(headers, scheduler)
    listing = Listing(library, scheduler, details)
    router = RouterHandlers(settings, library, scheduler, listing, details, board, errors)
    challenges = AcmeChallenges(tls, settings.public_dir)
    report = SystemReport(settings, library, scheduler, lifecycle, accounting, tls, source=source)
    page = PageHandlers(Files(DIST)) if settings.page else None
    relayed = RelayedHandlers(library, scheduler, headers, router, json_routes(responses))
    metrics = MetricsHandlers(
        settings.metrics,
        services,
        background.history,
        background.loop_lag,
        relayed.metrics_of_model,
        responses,
    )
    pulling = PullHandlers(settings, background.pulls, background.pulls_on_nodes)
    rows = [
        *ProbeHandlers(lifecycle, library, challenges).routes(),
        *router.routes(),
        *ListingHandlers(library, scheduler, listing).routes(),
        *LlmApiHandlers(library, scheduler, board, errors).routes(),
        *ModelStateHandlers(library, scheduler, headers, entries, services.conversations).routes(),
        *ModelEntryHandlers(entries).routes(),
        *CacheHandlers(services.conversations, library, gate).routes(),
        *StorageHandlers(library, StorageScan(settings, entries)).routes(),
        *HubHandlers(background.hub, scheduler.environment.nodes).routes(),
        *NodeHandlers(settings, scheduler.environment.nodes).routes(),
        *SystemHandlers(report).routes(),
        *HistoryHandlers(background.history).routes(),
        *LogHandlers().routes(),
        *StatusHandlers(
            gate, accounting, library, scheduler, lifecycle, services.conversations
        ).routes(),
        *AdminKeyHandlers(gate, accounting, library).routes(),
        *RequestHandlers(gate, accounting, scheduler).routes(),
        *OwnKeyHandlers(gate, accounting).routes(),
        *StreamHandlers(services.streams).routes(),
        *ResponseHandlers(responses).routes(),
        *ConversationHandlers(responses).routes(),
        *pulling.routes(),
        *ClientHandlers(settings, library, listing, tls).routes(),
        *SchemaHandlers().routes(),
        *metrics.routes(),
        *relayed.routes(),
        *OllamaHandlers().routes(),
        *OllamaModelHandlers(library, scheduler, listing, headers).routes(),
        *OllamaAdminHandlers(library, entries, pulling, background.pulls).routes(),
    ]
    built = page.docs if page is not None else None
    rows += OpenApiHandlers(rows, query_key=settings.auth.allow_query_key, built=built).routes()
    if settings.ui:
        rows += WebUiHandlers(background.web_ui, rows).routes()
    if page is not None:
        rows += page.routes()
    return rows


def _finder(
    services: Services, rows: Iterable[Row], responses: KeptResponses | None
) -> Callable[[bytes, CIMultiDict[str]], Endpoint | None]:
    """Return the fast protocol's lookup of handlers: the routes with a model in a JSON body."""
    handlers = json_routes(responses) | OLLAMA_ROUTES
    posts = [row for row in rows if row.method == "POST" and row.path in handlers]
    found = {row.path.encode(): (row, handlers[row.path]) for row in posts}

    def find(target: bytes, headers: CIMultiDict[str]) -> Endpoint | None:
        known = found.get(target)
        if known is None or not services.hosts.allows(headers["Host"]):
            return None
        return CachedRoute(*known, services, headers)

    return find
