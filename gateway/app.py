"""The one composition root: every route, and what its handler needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import cast

from aiohttp import web
from multidict import CIMultiDict

from gateway.access.accounting import ACCOUNTING, Accounting
from gateway.access.gate import KeyGate
from gateway.api import (
    admin,
    admin_keys,
    admin_models,
    admin_pulls,
    admin_requests,
    classic,
    clients,
    history,
    hub,
    listing,
    log,
    openapi,
    overview,
    own_key,
    probes,
    relayed,
    router,
    schemas,
    storage,
    system,
    webui,
)
from gateway.api.addresses import ADDRESSES, Addresses
from gateway.api.app_keys import (
    ERRORS,
    GATE,
    HEADERS,
    LIBRARY,
    LIFECYCLE,
    SCHEDULER,
    SETTINGS,
    ErrorLog,
)
from gateway.api.events import BOARD, Board
from gateway.api.middleware import PIPELINES, edge, nowhere, on_prepare
from gateway.api.pipeline import AiohttpRoute, CachedRoute
from gateway.api.reading import leave_expect
from gateway.api.room import Room
from gateway.api.services import SERVICES, Services
from gateway.backends.facts import Headers
from gateway.backends.scheduler import Scheduler
from gateway.backends.webui import WebUi
from gateway.config.settings import Settings
from gateway.entries import Entries
from gateway.http.cors import Cors
from gateway.http.fast_listener import FastRoutes
from gateway.http.hosts import Hosts, Proxies
from gateway.http.lifecycle import Lifecycle
from gateway.http.listeners import Site
from gateway.http.refusals import Refusals
from gateway.http.request import Endpoint, Handler
from gateway.http.tls_state import TLS, TlsState
from gateway.library import Library
from gateway.proxy.routes import dialect_at
from gateway.web import page

#: (method, path, handler). What a handler asks of its caller stands at its definition
#: (``@needs``); without it, a valid key. The routes of llama-server's that are passed on, or
#: refused, come from :mod:`gateway.proxy.routes`.
ROUTES = (
    ("GET", "/ping", probes.ping),
    ("GET", "/health", probes.health),
    ("GET", "/ready", probes.ready),
    ("GET", "/.well-known/acme-challenge/{token}", probes.acme_challenge),
    ("GET", "/v1/health", probes.health),
    ("GET", "/models", router.models),
    ("POST", "/models/load", router.load),
    ("POST", "/models/unload", router.unload),
    ("GET", "/models/sse", router.events),
    ("GET", "/models/{model:.+}", listing.openai_model),
    ("POST", "/loadModel", classic.load_model),
    ("GET", "/unloadModel", classic.unload_model),
    ("POST", "/unloadModel", classic.unload_model),
    ("GET", "/status", classic.status),
    ("GET", "/chat/errors", classic.chat_errors),
    ("GET", "/chat/ask", classic.chat_ask),
    ("GET", "/v1/models", listing.openai_models),
    ("GET", "/v1/models/{model:.+}", listing.openai_model),
    ("GET", "/admin/models", admin.models),
    ("GET", "/admin/models/{model:.+}/log", admin.model_log),
    ("GET", "/admin/models/{name:.+}", admin_models.get_entry),
    ("PUT", "/admin/models/{name:.+}", admin_models.put_entry),
    ("PATCH", "/admin/models/{name:.+}", admin_models.patch_entry),
    ("DELETE", "/admin/models/{name:.+}", admin_models.delete_entry),
    ("GET", "/admin/storage", storage.storage),
    ("GET", "/admin/hub", hub.hub_listing),
    ("GET", "/admin/system", system.system_report),
    ("GET", "/admin/system/history", history.system_history),
    ("GET", "/admin/log", log.gateway_log),
    ("GET", "/admin/status", overview.gateway_status),
    ("POST", "/admin/keys/reload", admin.reload_keys),
    ("GET", "/admin/keys", admin_keys.list_keys),
    ("POST", "/admin/keys", admin_keys.create_key),
    ("PATCH", "/admin/keys/{id}", admin_keys.change_key),
    ("DELETE", "/admin/keys/{id}", admin_keys.revoke_key),
    ("GET", "/admin/usage", admin_keys.usage),
    ("GET", "/admin/requests", admin_requests.list_requests),
    ("DELETE", "/admin/requests/{id}", admin_requests.cancel_request),
    ("GET", "/key", own_key.own_key),
    ("GET", "/key/usage", own_key.own_usage),
    ("GET", "/admin/pulls", admin_pulls.list_pulls),
    ("POST", "/admin/pulls", admin_pulls.begin_pull),
    ("DELETE", "/admin/pulls/{id}", admin_pulls.end_pull),
    ("GET", "/clients", clients.clients),
    ("GET", "/schemas/{name}", schemas.schema),
    ("GET", "/openapi.json", openapi.openapi_json),
    ("GET", "/docs", openapi.docs),
    *relayed.routes(),
    ("*", "/upstream/{path:.+}", relayed.upstream),
)

#: What is answered to HEAD, too.
_WITH_HEAD = (probes.health, probes.ping, openapi.openapi_json, openapi.docs, page.root, page.file)


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
) -> tuple[Site, Room]:
    """What is served, and the memory for bodies: routes, and the services handlers work with.

    ``source``: the file that ``settings`` are from.
    """
    app = web.Application(client_max_size=settings.limits.max_body, middlewares=[edge])
    errors = ErrorLog()
    scheduler.died = lambda model, error: errors.add(
        error.message, code=error.code, model=model, request_id=None
    )
    services = app[SERVICES] = Services(
        settings,
        accounting=accounting,
        cors=Cors(settings.cors.origins),
        errors=errors,
        gate=gate,
        headers=Headers(settings.llm_storage),
        hosts=hosts,
        library=library,
        lifecycle=lifecycle,
        proxies=proxies,
        scheduler=scheduler,
        tls=TlsState(),
    )
    app[SETTINGS] = settings
    app[LIBRARY] = library
    app[SCHEDULER] = scheduler
    app[GATE] = gate
    app[LIFECYCLE] = lifecycle
    app[ACCOUNTING] = accounting
    app[TLS] = services.tls
    app[ERRORS] = errors
    app[HEADERS] = services.headers
    app[listing.DETAILS] = listing.Details(services.headers)
    app[openapi.DOCUMENTS] = openapi.Documents(ROUTES)
    app[admin_models.ENTRIES] = Entries(settings, library)
    app[storage.STORAGE] = storage.Storage(settings, app[admin_models.ENTRIES])
    app[BOARD] = Board(scheduler, library)
    admin_pulls.make(app)
    history.make(app)
    app[system.SYSTEM] = system.System(app, source)
    hub.make(app)
    app.on_response_prepare.append(on_prepare)
    if settings.ui:
        app[webui.WEB_UI] = WebUi(scheduler.environment)
        app.cleanup_ctx.append(webui.keep)
    routes = [*ROUTES, *(webui.routes(ROUTES) if settings.ui else ())]
    if settings.page:
        page.keep(app)
        app[openapi.BUILT] = page.docs
        routes += page.routes()
    app[ADDRESSES] = Addresses((method, path) for method, path, _ in routes)
    _add_routes(app, routes)
    fast = FastRoutes(_finder(services), services.answer_headers, lifecycle)
    refusals = Refusals(services.cors, lambda path, error: dialect_at(path).body(error))

    def redirect(https_port: int) -> web.Application:
        from gateway.redirect import build_redirect  # only with TLS

        return build_redirect(settings, services.tls, https_port)

    return Site(app, fast, services.tls, services.proxies, refusals, redirect), services.room


def _add_routes(app: web.Application, routes: Iterable[tuple[str, str, Handler]]) -> None:
    pipelines = app[PIPELINES] = {}
    for method, path, made in (*routes, ("*", "/{path:.*}", nowhere)):
        pipelines[made] = AiohttpRoute(made)
        # What is whole becomes aiohttp's own in the middleware.
        handler = cast("Callable[[web.Request], Awaitable[web.StreamResponse]]", made)
        # HEAD comes with GET only for probes and documents: a relayed answer has no HEAD.
        if method == "GET":
            head = made in _WITH_HEAD
            app.router.add_get(path, handler, allow_head=head, expect_handler=leave_expect)
        else:
            app.router.add_route(method, path, handler, expect_handler=leave_expect)


def _finder(services: Services) -> Callable[[bytes, CIMultiDict[str]], Endpoint | None]:
    """What tells the fast protocol who answers: the routes with a model in a JSON body."""
    handlers = {path.encode(): handler for path, handler in relayed.JSON_ROUTES.items()}

    def find(target: bytes, headers: CIMultiDict[str]) -> Endpoint | None:
        handler = handlers.get(target)
        if handler is None or not services.hosts.allows(headers["Host"]):
            return None
        return CachedRoute(handler, services, headers)

    return find
