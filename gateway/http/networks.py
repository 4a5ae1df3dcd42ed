"""The network of an address: addresses that count as one client. Pure."""

from __future__ import annotations

import socket

_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:1.2.3.4, an IPv4 address (RFC 4291, 2.5.5.2)


def network_of(address: str | None) -> bytes | None:
    """Return what counts as one client: an IPv4 address, or a /64 of IPv6, which one customer gets.

    ``None`` for what is no address: a Unix socket has only local peers.
    """
    if not address:
        return None
    try:
        if ":" not in address:
            return socket.inet_pton(socket.AF_INET, address)
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):  # ValueError: text that C can't take
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed[:8]
