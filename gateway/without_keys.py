"""Tells whether others than this machine's users can reach a gateway without keys.

:mod:`gateway.access.without_keys` tells which of this machine's users then administrate it.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from gateway.config.settings import Settings

#: Addresses of a carrier's own network, and of Tailscale (RFC 6598), which Python calls public.
_SHARED: Final = ipaddress.IPv4Network("100.64.0.0/10")


def why_not_open(settings: Settings) -> str | None:
    """Return why a gateway without keys must not start with ``settings``, or ``None``."""
    others = _who_else(settings)
    if others is None or settings.auth.open_to_network:
        return None
    return (
        f"auth.enabled is false, and {others}: everybody who reaches it could use every model. "
        "Ask for keys (auth.enabled: true, and `llm-gateway keys create NAME`), or stay on this "
        "machine (host: 127.0.0.1, without trusted_proxies); if it shall be open to everybody on "
        "that network, say so: auth.open_to_network: true"
    )


def warnings_of(settings: Settings) -> list[str]:
    """Return the warnings at every start of a gateway that is open on purpose."""
    return [*filter(None, (_of_open_gateway(settings), _of_open_networks(settings)))]


def _of_open_gateway(settings: Settings) -> str | None:
    others = _who_else(settings)
    if others is None or not settings.auth.open_to_network:
        return None
    return (
        f"auth.enabled is false, and {others}: everybody who reaches it may use every model, as "
        "auth.open_to_network says"
    )


def _of_open_networks(settings: Settings) -> str | None:
    networks = settings.auth.ollama_open_to
    if networks and not settings.auth.enabled:
        return "auth.ollama_open_to has no effect: auth.enabled is false, so nobody needs a key"
    wide = [text for text in networks if not _is_private(ipaddress.ip_network(text))]
    if not wide:
        return None
    return (
        f"auth.ollama_open_to: {', '.join(wide)} holds addresses of the internet: everybody there "
        "who reaches the gateway may use every model by Ollama's API, without a key"
    )


def _is_private(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    if network.is_private:
        return True
    return isinstance(network, ipaddress.IPv4Network) and network.subnet_of(_SHARED)


def _who_else(settings: Settings) -> str | None:
    """Return how others than this machine's users reach a gateway without keys, if they do."""
    if settings.auth.enabled:
        return None
    if settings.others_reach is not None:
        return f"{settings.others_reach} can be reached from other machines"
    if settings.trusted_proxies:
        return f"trusted_proxies ({', '.join(settings.trusted_proxies)}) let others in"
    return None
