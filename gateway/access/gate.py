"""The gate: finds out who makes a request, by its key, and whether they may make it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

from gateway.access.key_lookup import UnknownKey
from gateway.access.keys import KeyRing
from gateway.access.open_to import OpenNetworks
from gateway.access.principal import ANONYMOUS, LOCAL_ADMIN, OLLAMA, SCRAPER, VISITOR, Principal
from gateway.access.without_keys import refusal
from gateway.access.wrong_keys import WrongKeys
from gateway.config.settings import AuthSettings
from gateway.errors import Forbidden, Unauthorized
from gateway.http.hosts import Hosts, Proxies
from gateway.http.request import RequestHead
from gateway.scope import OF_ANY_KEY, Scope


class KeyGate:
    """A gate that lets requests in by their keys; they wait until the store has been opened.

    ``hosts`` and ``proxies`` tell who is on this machine, where no keys are asked for.
    """

    def __init__(
        self,
        settings: AuthSettings,
        hosts: Hosts,
        proxies: Proxies,
        *,
        open_metrics: bool = False,
        ollama_open_to: OpenNetworks | None = None,
    ) -> None:
        """``open_metrics``: programs on this machine read metrics without a key.
        ``ollama_open_to``: those that speak Ollama's API need none from there.
        """
        #: Whether requests need a key.
        self.keys_needed = settings.enabled
        #: Whether a key may stand in a query (``?authKey=``).
        self.keys_in_queries = settings.allow_query_key
        self._open_metrics = open_metrics
        self._ollama_open_to = ollama_open_to
        self._hosts = hosts
        self._proxies = proxies
        self.ring: KeyRing | None = None
        self._open = asyncio.Event()
        #: The paths of control sockets. Only the owner of the data folder can reach them.
        self.controls: frozenset[str] = frozenset()
        self.wrong_keys = WrongKeys()
        #: Called when a key may have lost a right.
        self.rights_changed: Callable[[], None] = lambda: None

    def open(self, ring: KeyRing) -> None:
        """Let requests in from now on: keys can be checked."""
        self.ring = ring
        ring.lookup.rights_changed = lambda: self.rights_changed()
        self._open.set()

    @property
    def is_closed(self) -> bool:
        """Whether keys are needed but can't be checked yet: see :meth:`wait`."""
        return self.ring is None and self.keys_needed

    async def wait(self) -> KeyRing:
        """Return the ring, as soon as there is one."""
        await self._open.wait()
        assert self.ring is not None
        return self.ring

    def identify(self, request: RequestHead, key: str | None, scope: Scope) -> Principal:
        """Return who asks; what that may do is for :meth:`check` to say.

        ``key``: the one that was presented, unchecked; not to be called with one while it
        :attr:`is_closed`. Raises :class:`Unauthorized`; :class:`gateway.errors.RateLimited` to
        who seems to guess; without keys, :class:`Forbidden`.
        """
        if not self.keys_needed:
            return self._without_key(request, scope)
        return self._authenticate(request, key, scope)

    def check(self, principal: Principal, scope: Scope) -> None:
        """Raise :class:`Forbidden` unless ``principal`` may ask for what needs ``scope``."""
        if scope not in principal.scopes:
            raise _lacks(scope)

    def _without_key(self, request: RequestHead, scope: Scope) -> Principal:
        """Return who asks where no key is needed. Raises :class:`Forbidden`."""
        if self._by_control_socket(request):
            return LOCAL_ADMIN
        reason = refusal(request, self._hosts, self._proxies)
        if reason is None:
            return ANONYMOUS
        if not VISITOR.may(scope):
            raise Forbidden(
                "without keys (auth.enabled: false) this is only for programs on the gateway's own "
                f"machine: {reason}",
                code="local_only",
            )
        return VISITOR

    def _authenticate(self, request: RequestHead, key: str | None, scope: Scope) -> Principal:
        if key is None:
            if self._by_control_socket(request):
                return LOCAL_ADMIN
            if scope is Scope.METRICS and self._may_scrape(request):
                return SCRAPER
            why, networks = self._why_none(request), self._ollama_open_to
            if scope is Scope.OLLAMA and networks is not None and networks.holds(request):
                if (refused := networks.refusal(request)) is None:
                    return OLLAMA
                why = f" ({refused}, so auth.ollama_open_to does not count)"
            raise Unauthorized(
                f"no API key was sent{why}: use the header "
                "`Authorization: Bearer KEY`. Keys are made with `llm-gateway keys create NAME`"
            )
        ring = self.ring
        assert ring is not None
        now = time.time()
        try:
            principal = ring.lookup.find(key, now)
        except UnknownKey:
            self.wrong_keys.wrong(self._proxies.client(request))
            raise
        if principal.guessable:
            self.wrong_keys.right(self._proxies.client(request), principal.key_id)
        if principal.narrow and scope not in principal.scopes:
            # Here, so that routes for any key need not look at the rights of each.
            raise _lacks(scope)
        ring.touch(principal.key_id, now)
        return principal

    def _may_scrape(self, request: RequestHead) -> bool:
        """Return whether ``request`` is one of a program on this machine, which reads metrics
        without a key.
        """
        return self._open_metrics and refusal(request, self._hosts, self._proxies) is None

    def _why_none(self, request: RequestHead) -> str:
        """Return in brackets why a key that was meant to come did not, as far as that shows."""
        if "authKey" in request.query:
            if not self.keys_in_queries:
                return " (?authKey is switched off here, see auth.allow_query_key)"
            if request.method != "GET":
                return " (?authKey is taken with GET only)"
        authorization = request.headers.get("Authorization", "").strip()
        if authorization and authorization[:6].lower() != "bearer":
            return " (Authorization holds no `Bearer`)"
        return " (or only a word like null in its place)"

    def _by_control_socket(self, request: RequestHead) -> bool:
        transport = request.transport
        if transport is None or not hasattr(socket, "AF_UNIX"):
            return False
        return transport.get_extra_info("sockname") in self.controls


def _lacks(scope: Scope) -> Forbidden:
    """Return the error of a principal without the right ``scope``."""
    kind = "metrics" if scope is Scope.METRICS else "admin"
    if scope in OF_ANY_KEY:
        return Forbidden("this key is for /metrics only", code="other_key_required")
    return Forbidden(
        f"this needs {scope.asks_for}: `llm-gateway keys create NAME --{kind}` makes one",
        code=f"{kind}_key_required",
    )
