"""The one composition root: every route, and what its handler needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

from gateway.api import (
    admin,
    admin_keys,
    classic,
    entrance,
    listing,
    openapi,
    probes,
    relayed,
    router,
    webui,
)
from gateway.api.accounting import ACCOUNTING, Accounting
from gateway.api.addresses import ADDRESSES, Addresses
from gateway.api.context import (
    DOOR,
    ERRORS,
    HEADERS,
    LIBRARY,
    LIFECYCLE,
    SCHEDULER,
    SETTINGS,
    Door,
    ErrorLog,
    Lifecycle,
)
from gateway.api.cors import CORS, Cors
from gateway.api.middleware import edge, nowhere, on_prepare
from gateway.api.reading import leave_expect
from gateway.backends.facts import Headers
from gateway.backends.scheduler import Scheduler
from gateway.backends.webui import WebUi
from gateway.config import Settings
from gateway.library import Library

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
    ("GET", "/admin/status", admin.gateway_status),
    ("POST", "/admin/keys/reload", admin.reload_keys),
    ("GET", "/admin/keys", admin_keys.list_keys),
    ("POST", "/admin/keys", admin_keys.create_key),
    ("PATCH", "/admin/keys/{id}", admin_keys.change_key),
    ("DELETE", "/admin/keys/{id}", admin_keys.revoke_key),
    ("GET", "/admin/usage", admin_keys.usage),
    ("GET", "/openapi.json", openapi.openapi_json),
    ("GET", "/docs", openapi.docs),
    *relayed.routes(),
    ("*", "/upstream/{path:.+}", relayed.upstream),
)


def build_app(
    settings: Settings,
    library: Library,
    scheduler: Scheduler,
    door: Door,
    lifecycle: Lifecycle,
    accounting: Accounting,
) -> web.Application:
    """The application: routes, middleware, and the parts handlers work with."""
    app = web.Application(client_max_size=settings.limits.max_body, middlewares=[edge])
    app[SETTINGS] = settings
    app[LIBRARY] = library
    app[SCHEDULER] = scheduler
    app[DOOR] = door
    app[LIFECYCLE] = lifecycle
    app[ACCOUNTING] = accounting
    app[ERRORS] = errors = ErrorLog()
    scheduler.died = lambda model, error: errors.add(
        error.message, code=error.code, model=model, request_id=None
    )
    headers = app[HEADERS] = Headers(settings.llm_storage)
    app[listing.DETAILS] = listing.Details(headers)
    app[openapi.DOCUMENTS] = openapi.Documents(ROUTES)
    app[CORS] = Cors(settings.cors.origins)
    app[entrance.ROUTES] = {path.encode(): h for path, h in relayed.JSON_ROUTES.items()}
    app.on_response_prepare.append(on_prepare)
    if settings.ui:
        app[webui.WEB_UI] = WebUi(scheduler.environment)
        app.cleanup_ctx.append(webui.keep)
    routes = (*ROUTES, *(webui.routes(ROUTES) if settings.ui else ()))
    app[ADDRESSES] = Addresses((method, path) for method, path, _ in routes)
    for method, path, made in routes:
        # What is whole becomes aiohttp's own in the middleware.
        handler = cast("Callable[[web.Request], Awaitable[web.StreamResponse]]", made)
        # HEAD comes with GET only where a probe may use it: a relayed answer has no HEAD.
        if method == "GET":
            head = made in (probes.health, probes.ping)
            app.router.add_get(path, handler, allow_head=head, expect_handler=leave_expect)
        else:
            app.router.add_route(method, path, handler, expect_handler=leave_expect)
    app.router.add_route("*", "/{path:.*}", nowhere, expect_handler=leave_expect)
    return app
