"""Who is an administrator where no keys are needed (``auth.enabled: false``): the user of this
machine.

Whoever comes over loopback, that is, and is no web page. A page of any site in the user's browser
comes over loopback too, so what counts is what no page can send: its browser says whose page it is
(``Origin``, RFC 6454; ``Sec-Fetch-Site``, W3C Fetch Metadata), a page sends no JSON elsewhere
without asking first (WHATWG Fetch, "CORS-preflight"), and one that had its own name lead here (DNS
rebinding) still says that name in ``Host``. A proxy on this machine lets others come over
loopback, and nearly every one says so.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from gateway.http.hosts import Hosts, Proxies, address_in, host_in
from gateway.http.request import RequestHead

#: Headers that proxies and tunnels add: such a connection is somebody else's.
OF_PROXIES: Final = (
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "Via",
    "CF-Connecting-IP",
    "True-Client-IP",
)
#: The values of ``Sec-Fetch-Site`` for our own page, and for an address that the user typed.
OF_THE_USER: Final = ("same-origin", "none")


def refusal(request: RequestHead, hosts: Hosts, proxies: Proxies) -> str | None:
    """Return why ``request`` is not taken for one of this machine's user, or ``None``."""
    headers = request.headers
    peer = address_in(request.remote or "")
    if peer is None or not peer.is_loopback:
        return "it did not come over loopback (127.0.0.1)"
    if (
        any(name in headers for name in OF_PROXIES)
        or proxies.trusts(request.remote)
        # nginx adds nothing by default, but speaks HTTP/1.0.
        or request.version < (1, 1)
    ):
        return "it came through a proxy"
    host = headers.get("Host", "")
    if not _is_here(host, hosts):
        return "its Host is not localhost, 127.0.0.1 or one of allowed_hosts"
    origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
    ours = f"{'https' if request.secure else 'http'}://{host}".lower()
    if (origin is not None and origin.lower() != ours) or (
        site is not None and site not in OF_THE_USER
    ):
        return "it came from a web page elsewhere"
    if origin is None and site is None and _is_old_browser(headers.get("User-Agent", "")):
        return "it came from a browser that doesn't say whose page asks"
    if request.can_read_body and not is_json(headers.get("Content-Type", "")):
        return "its body is not sent as Content-Type: application/json"
    return None


def _is_here(host: str, hosts: Hosts) -> bool:
    name = host_in(host)
    if name is None:
        return False
    if name == "localhost" or name.endswith(".localhost") or hosts.lists(name):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_old_browser(agent: str) -> bool:
    """Return whether it calls itself Mozilla, as every browser does, and PowerShell."""
    return agent.startswith("Mozilla/") and "PowerShell" not in agent


def is_json(content_type: str) -> bool:
    """Return whether a Content-Type is that of JSON."""
    return content_type.partition(";")[0].strip().lower() == "application/json"
