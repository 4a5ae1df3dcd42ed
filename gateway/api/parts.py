"""The parts of the application that every request needs, looked up once."""

from __future__ import annotations

from aiohttp import web

from gateway.access.accounting import ACCOUNTING
from gateway.api.context import DOOR, ERRORS, HEADERS, LIBRARY, LIFECYCLE, SCHEDULER, SETTINGS
from gateway.api.room import Room
from gateway.api.standing import Standing
from gateway.http.cors import CORS
from gateway.http.hosts import HOSTS, PROXIES
from gateway.http.tls_state import TLS
from gateway.proxy.bounds import Bounds
from gateway.proxy.ending import Endings
from gateway.proxy.media import DATA_ONLY, FETCHED_TOO
from gateway.proxy.shaping import Rules
from gateway.proxy.template import Templates


class Parts:
    """What stands in ``app`` under keys, and what requests ask of its settings.

    A key costs a call, and a field of the settings, which are pydantic's, as much as ten
    attributes of this: several percent of a small request in all.
    """

    __slots__ = (
        "accounting",
        "bounds",
        "cors",
        "door",
        "endings",
        "errors",
        "headers",
        "heartbeat",
        "hosts",
        "keys_in_queries",
        "keys_needed",
        "library",
        "lifecycle",
        "limits",
        "max_body",
        "media",
        "most_values",
        "proxies",
        "room",
        "rules",
        "scheduler",
        "standing",
        "templates",
        "tls",
    )

    def __init__(self, app: web.Application) -> None:
        self.accounting = app[ACCOUNTING]
        self.cors = app[CORS]
        self.door = app[DOOR]
        self.errors = app[ERRORS]
        self.headers = app[HEADERS]
        self.hosts = app[HOSTS]
        self.library = app[LIBRARY]
        self.lifecycle = app[LIFECYCLE]
        self.proxies = app[PROXIES]
        self.scheduler = app[SCHEDULER]
        self.tls = app[TLS]
        settings = app[SETTINGS]
        self.templates = Templates()
        self.keys_needed = settings.auth.enabled
        self.keys_in_queries = settings.auth.allow_query_key
        self.heartbeat = settings.limits.heartbeat
        self.limits = settings.limits
        self.bounds = Bounds(settings.limits.request)
        self.endings = Endings(settings.limits.request.time)
        self.standing = Standing(self.door, self.endings)
        self.max_body = settings.limits.max_body
        #: How addresses of media in a body may begin.
        self.media = FETCHED_TOO if settings.remote_media else DATA_ONLY
        #: Values in one JSON body.
        self.most_values = settings.limits.request.values
        #: What becomes of the JSON bodies of a route, by its path.
        self.rules: dict[str, Rules] = {}
        #: For what is large of bodies; the largest of them always has some.
        self.room = Room(max(settings.limits.body_memory, 2 * self.max_body))


PARTS = web.AppKey("parts", Parts)
