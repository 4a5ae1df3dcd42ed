"""Tells whether others than this machine's users can reach a gateway without keys.

:mod:`gateway.access.without_keys` tells which of this machine's users then administrate it.
"""

from __future__ import annotations

from gateway.config.settings import Settings


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


def warning_of(settings: Settings) -> str | None:
    """Return the warning at every start of a gateway that is open on purpose, or ``None``."""
    others = _who_else(settings)
    if others is None or not settings.auth.open_to_network:
        return None
    return (
        f"auth.enabled is false, and {others}: everybody who reaches it may use every model, as "
        "auth.open_to_network says"
    )


def _who_else(settings: Settings) -> str | None:
    """Return how others than this machine's users reach a gateway without keys, if they do."""
    if settings.auth.enabled:
        return None
    if settings.others_reach is not None:
        return f"{settings.others_reach} can be reached from other machines"
    if settings.trusted_proxies:
        return f"trusted_proxies ({', '.join(settings.trusted_proxies)}) let others in"
    return None
