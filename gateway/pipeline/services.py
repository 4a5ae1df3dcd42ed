"""The services that the pipeline and the routes of models use for every request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.access.accounting import Accounting
from gateway.access.body_memory import BodyMemory
from gateway.access.gate import KeyGate
from gateway.access.standing import Standing
from gateway.backends.facts import Headers
from gateway.backends.scheduler import Scheduler
from gateway.config.settings import Settings
from gateway.conversations.chain import Chains
from gateway.error_log import ErrorLog
from gateway.http.answer_headers import AnswerHeaders
from gateway.http.cors import Cors
from gateway.http.hosts import Hosts, Proxies
from gateway.http.lifecycle import Lifecycle
from gateway.http.tls_state import TlsState
from gateway.library import Library
from gateway.pipeline.addresses import Addresses
from gateway.proxy.bounds import Bounds
from gateway.proxy.ending import Endings
from gateway.proxy.media import DATA_ONLY, FETCHED_TOO
from gateway.proxy.shaping import Rules
from gateway.proxy.template import Templates
from gateway.streams.kept import KeptStreams

if TYPE_CHECKING:
    from gateway.conversations.keeper import Conversations

#: How many messages are remembered, of conversations with models on several servers.
_CHAINED: Final = 8192


class Services:
    """The services of the pipeline and of the routes of models; a request's context leads to them.

    The handlers of other routes are given what they need when they are made.
    """

    __slots__ = (
        "accounting",
        "addresses",
        "answer_headers",
        "answers",
        "body_memory",
        "bounds",
        "chains",
        "conversations",
        "cors",
        "endings",
        "errors",
        "gate",
        "headers",
        "hosts",
        "library",
        "lifecycle",
        "limits",
        "media",
        "proxies",
        "rules",
        "scheduler",
        "standing",
        "streams",
        "templates",
        "tls",
    )

    def __init__(
        self,
        settings: Settings,
        *,
        accounting: Accounting,
        cors: Cors,
        errors: ErrorLog,
        gate: KeyGate,
        headers: Headers,
        hosts: Hosts,
        library: Library,
        lifecycle: Lifecycle,
        proxies: Proxies,
        scheduler: Scheduler,
        tls: TlsState,
        conversations: Conversations | None = None,
    ) -> None:
        self.accounting = accounting
        self.addresses = Addresses()
        self.answer_headers = AnswerHeaders(cors, tls, proxies)
        #: How many answers had each status, by the method and path of their route.
        self.answers: dict[tuple[str, str], dict[int, int]] = {}
        self.chains = Chains(_CHAINED)
        self.cors = cors
        self.errors = errors
        self.gate = gate
        self.headers = headers
        self.hosts = hosts
        self.library = library
        self.lifecycle = lifecycle
        self.proxies = proxies
        self.scheduler = scheduler
        self.tls = tls
        #: The saved conversations; None if saving is off.
        self.conversations = conversations
        self.templates = Templates()
        self.limits = settings.limits
        self.bounds = Bounds(settings.limits.request)
        self.endings = Endings(settings.limits.request.time)
        self.standing = Standing(gate, self.endings)
        kept = settings.streams
        #: The streams that can be read again; None if none are kept.
        self.streams = (
            KeptStreams(keep=kept.keep, max_size=kept.max_size) if kept.keep is not None else None
        )
        #: The allowed beginnings of media addresses in a body.
        self.media = FETCHED_TOO if settings.remote_media else DATA_ONLY
        #: The rules for the JSON bodies of a route, by its path.
        self.rules: dict[str, Rules] = {}
        #: The memory for large bodies. The largest allowed one always fits.
        self.body_memory = BodyMemory(
            max(settings.limits.body_memory, 2 * settings.limits.max_body)
        )
