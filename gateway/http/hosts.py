"""Checks the Host of a request, and finds the client's address behind a proxy.

DNS rebinding: a web page's own name is made to lead to 127.0.0.1, and its scripts then talk to
this gateway as to their own server. Their Host header still says that name. So a gateway that
only this machine can reach answers only to names that the public DNS cannot hold, and to
addresses; ``allowed_hosts`` says more names, or, elsewhere, the only ones.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence

from gateway.config.settings import Settings
from gateway.errors import BadRequest
from gateway.http.request import RequestHead
from gateway.http.tls_state import HSTS
from gateway.names import is_local, is_public, parse_name

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")
#: How many verdicts are cached, of names and of addresses.
_KEPT = 1024


class Misdirected(BadRequest):
    """421: the gateway is not called that (RFC 9110, 15.5.20)."""

    status = 421
    default_code = "host_not_allowed"


class Hosts:
    """Decides which Host headers are answered."""

    def __init__(self, settings: Settings) -> None:
        names = settings.allowed_hosts
        #: Whether names of the public DNS are refused, except those in `allowed_hosts`.
        self._local = settings.others_reach is None and not settings.trusted_proxies
        self._any = names is not None and "*" in names
        if names is None:
            self._any = not self._local
        self._names = frozenset(name for name in names or () if not name.startswith("*"))
        self._below = tuple(name[1:] for name in names or () if name.startswith("*."))
        self._refusal: Callable[[str], str | None] = functools.lru_cache(_KEPT)(self._judge)

    def check(self, given: Sequence[str], version: tuple[int, int]) -> None:
        """Raise :class:`BadRequest` for a request whose Host headers are ``given``."""
        if len(given) != 1:
            if given or version >= (1, 1):  # RFC 9112, 3.2
                raise BadRequest("a request has one Host header", code="malformed_request")
            return  # HTTP/1.0, which no browser speaks
        if (refusal := self._refusal(given[0])) is not None:
            raise Misdirected(refusal)

    def allows(self, given: str) -> bool:
        """Return whether :meth:`check` has nothing against one such header."""
        return self._refusal(given) is None

    def lists(self, host: str) -> bool:
        """Return whether ``host``, as :func:`host_in` has it, is named in ``allowed_hosts``."""
        return host in self._names or any(host.endswith(end) for end in self._below)

    def knows(self, given: str) -> bool:
        """Return whether a Host header holds what no page elsewhere can be called: an address, a
        local name, or one in ``allowed_hosts``.
        """
        host = host_in(given)
        return host is not None and (_is_address(host) or is_local(host) or self.lists(host))

    def _judge(self, given: str) -> str | None:
        host = host_in(given)
        if host is None:
            return "the Host header holds no host"
        if self._any or self.lists(host) or _is_address(host):
            return None  # an address is nobody's name, so no page can have come from it
        if self._local and is_local(host):
            return None
        return f"this gateway is not {host}: if it is, add that name to `allowed_hosts`"


class Proxies:
    """The proxies (``trusted_proxies``) that are believed about the client's address and its use of
    TLS.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(text) for text in trusted]
        #: Whether any proxy is trusted.
        self.any = bool(self._networks)
        self.trusts: Callable[[str | None], bool] = functools.lru_cache(_KEPT)(self._trusts)

    def client(self, request: RequestHead) -> str | None:
        """Return the address ``request`` came from: the last one that no trusted proxy vouches for.

        Anything left of it in X-Forwarded-For was written by strangers.
        """
        address = request.remote
        if not self._networks or not self.trusts(address):
            return address
        for text in reversed(",".join(request.headers.getall("X-Forwarded-For", ())).split(",")):
            if (found := address_in(text)) is None:
                break
            address = str(found)
            if not self.trusts(address):
                break
        return address

    def hsts(self, request: RequestHead) -> str | None:
        """Return the Strict-Transport-Security of an answer that a proxy in front sends over https.

        The last value of X-Forwarded-Proto tells: anything left of it came from others. As over our
        own TLS, only a public name is bound.
        """
        if not self._networks or not self.trusts(request.remote):
            return None
        said = ",".join(request.headers.getall("X-Forwarded-Proto", ())).rpartition(",")[2]
        if said.strip().lower() != "https":
            return None
        match = _HOST.fullmatch(request.headers.get("Host", ""))
        return HSTS if match is not None and is_public(match[1]) else None

    def _trusts(self, address: str | None) -> bool:
        found = address_in(address or "")
        return found is not None and any(found in network for network in self._networks)


def host_in(given: str) -> str | None:
    """Return the host in a Host header, in lower case, without port; ``None`` if there is none."""
    match = _HOST.fullmatch(given)
    return None if match is None else match[1].lower().removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        return not isinstance(parse_name(host.strip("[]")), str)
    except ValueError:
        return False


def address_in(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address as proxies write it: ``1.2.3.4``, ``::1``, with or without brackets and
    port.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
