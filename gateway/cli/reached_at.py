"""The address at which clients reach the gateway on this machine."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.config.settings import Settings
from gateway.listen_on import is_loopback
from gateway.names import is_public
from gateway.own_addresses import own_addresses


class Address(NamedTuple):
    """``url`` without a path, and the PEM file of the authority that clients have to trust."""

    url: str
    ca: str | None


def address_of(settings: Settings, urls: Sequence[str]) -> Address:
    """Return the address for clients: a name that the gateway is known by, or else an IP address.

    ``urls`` are those it listens on. If other machines can reach it, the address works for them,
    too. Blocks.
    """
    listening = urlsplit(urls[0])
    port = listening.port
    if settings.tls.enabled and settings.tls.public_port is not None:
        port = settings.tls.public_port
    names, ca = _certified(settings)
    host = next(_names(settings, names), None) or _own_address(settings) or listening.hostname or ""
    if names and not any(_covers(name, host) for name in names):
        host = _certified_name(names, here=settings.others_reach is None) or host
    shown = f"[{host}]" if ":" in host else host
    default = port == (443 if listening.scheme == "https" else 80)
    return Address(f"{listening.scheme}://{shown}{'' if default else f':{port}'}", ca)


def is_only_here(url: str) -> bool:
    """Return whether ``url`` would mean another machine to a client on another machine."""
    return is_loopback(urlsplit(url).hostname or "")


def _names(settings: Settings, certified: Sequence[str]) -> Iterator[str]:
    """Yield names that lead here, the best first."""
    if settings.tls.acme is not None:
        yield from settings.tls.acme.domains
    if settings.others_reach is None and not settings.trusted_proxies:
        return
    yield from (name for name in settings.allowed_hosts or () if "*" not in name)
    yield from (name for name in certified if is_public(name) and "*" not in name)


def _certified(settings: Settings) -> tuple[list[str], str | None]:
    """Return the names in the certificate's files, and the file of its authority if that is
    our own.
    """
    tls = settings.tls
    if not tls.enabled or tls.acme is not None or tls.certificate is None:
        return [], None
    from gateway.tls import inspect  # only with TLS

    certificate = inspect(tls).certificate
    if certificate is None:
        return [], None
    ca = str(tls.ca_chain or tls.certificate) if certificate.local else None
    return list(certificate.names), ca


def _covers(name: str, host: str) -> bool:
    """Return whether a certificate for ``name`` is good for ``host`` (RFC 6125, 6.4)."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name) == ipaddress.ip_address(host)
    if name.startswith("*."):
        return host.partition(".")[2].lower() == name[2:].lower()
    return name.lower() == host.lower()


def _certified_name(names: Sequence[str], *, here: bool) -> str | None:
    """Return the best of a certificate's names. Whether it leads here can't be known."""
    usable = [name for name in names if not name.startswith("*.")]
    wanted = [name for name in usable if is_loopback(name) == here]
    if here and "localhost" in wanted:
        return "localhost"
    return next(iter(wanted or usable), None)


def _own_address(settings: Settings) -> str | None:
    """Return an address of this machine in its network, if the gateway listens there."""
    outside = [host for host in settings.hosts if not is_loopback(host)]
    for host in outside:
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host).is_unspecified:
                continue
        return host
    if not outside:
        return None
    return next(iter(own_addresses()), None)
