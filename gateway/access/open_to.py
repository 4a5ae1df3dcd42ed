"""Whose requests to Ollama's API need no key: the networks in ``auth.ollama_open_to``.

For programs that cannot send one. An address is easily had by a web page in the browser of
somebody within such a network, so nothing is let in that a page can send: its browser says whose
page it is (``Origin``, RFC 6454; ``Sec-Fetch-Site``, W3C Fetch Metadata), a page sends no JSON
elsewhere without an ``Origin`` (WHATWG Fetch), and one that had its own name lead here (DNS
rebinding) still says that name in ``Host``. Nor is a proxy that speaks for others without being
trusted to say for whom.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterable

from gateway.access.without_keys import OF_PROXIES, OF_THE_USER, is_json
from gateway.http.cors import Cors
from gateway.http.hosts import Hosts, Proxies, address_in
from gateway.http.request import RequestHead


class OpenNetworks:
    """The networks from which no key is needed, in CIDR notation.

    ``cors`` knows the pages that may ask from a browser: those it names, as ``*`` names none.
    """

    def __init__(self, networks: Iterable[str], hosts: Hosts, proxies: Proxies, cors: Cors) -> None:
        self._networks = [ipaddress.ip_network(text) for text in networks]
        self._hosts = hosts
        self._proxies = proxies
        self._cors = cors
        self._holds: Callable[[str | None], bool] = functools.lru_cache(1024)(self._is_within)

    def holds(self, request: RequestHead) -> bool:
        """Return whether the client of ``request`` is within one of the networks."""
        return self._holds(self._proxies.client(request))

    def refusal(self, request: RequestHead) -> str | None:
        """Return why ``request``, which they hold, needs a key all the same, or ``None``."""
        headers = request.headers
        if not self._proxies.trusts(request.remote):
            # nginx adds nothing by default, but speaks HTTP/1.0.
            if any(name in headers for name in OF_PROXIES) or request.version < (1, 1):
                return "it came through a proxy that isn't in trusted_proxies"
        elif "X-Forwarded-For" not in headers:
            return "its proxy doesn't say whom it is for (X-Forwarded-For)"
        # Over TLS no other name leads here: the browser has checked the certificate.
        if not request.secure and not self._hosts.knows(headers.get("Host", "")):
            return "its Host is no address, no local name, and not in allowed_hosts"
        origin = headers.get("Origin")
        if origin is not None:
            listed = self._cors.lists(origin)
            return None if listed else "it came from a web page that cors.origins doesn't name"
        if headers.get("Sec-Fetch-Site", "none") not in OF_THE_USER:
            return "it came from a web page elsewhere"
        if request.can_read_body and not is_json(headers.get("Content-Type", "")):
            return "its body is not sent as Content-Type: application/json"
        return None

    def _is_within(self, address: str | None) -> bool:
        found = address_in(address or "")
        return found is not None and any(found in network for network in self._networks)
