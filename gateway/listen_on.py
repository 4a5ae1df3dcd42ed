"""The addresses to listen on: the values of the setting ``host``, and whether they work here."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

#: What ``host`` may be, for error messages.
HOSTS: Final = "an address or host name, or a list of them"


def parse_hosts(value: object) -> str | tuple[str, ...]:
    """Return the hosts of the setting: one, or several in a list, or separated by commas.

    Raises ValueError with what is wrong.
    """
    if isinstance(value, list | tuple):
        given = list(value)
        if not given:
            raise ValueError("must name at least one address")
    elif isinstance(value, str):
        given = value.split(",")
    else:
        raise ValueError("must be a text, or a list of texts")
    hosts = []
    for one in given:
        if not isinstance(one, str):
            raise ValueError("must be a list of texts")
        hosts.append(_parse_host(one.strip()))
    if len(set(hosts)) < len(hosts):
        raise ValueError("names an address twice")
    return hosts[0] if len(hosts) == 1 else tuple(hosts)


def _parse_host(host: str) -> str:
    if not host:
        raise ValueError("must not be empty")
    if host.startswith("[") and host.endswith("]"):
        raise ValueError("is written without brackets, like ::1")
    if re.search(r"[/\s\"']", host):
        raise ValueError("must be an address or a name alone, without scheme or path")
    if re.fullmatch(r"[^:]*:\d*|\[.*\]:\d*", host):
        raise ValueError("must be an address or a name alone: its port is the setting `port`")
    return host


def addresses_of(host: str) -> list[str]:
    """Return the addresses of ``host`` that this machine has; a name may have others, too.

    As in asyncio (bpo-30945), ``localhost`` is ::1 too, even without IPv6. Raises ``OSError`` if
    there is none at all. Blocks.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:  # as idna has it, of a label that is too long
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    usable, wrong = [], None
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind(address)  # its port is 0: any
        except OSError as error:
            wrong = error
        else:
            usable.append(str(address[0]))
    if not usable:
        raise wrong or socket.gaierror(socket.EAI_NONAME, "no address")
    return usable


def faults(hosts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return each of ``hosts`` that cannot be listened on, and why, whatever the port.

    Blocks.
    """
    taken: dict[str, str] = {}
    for host in hosts:
        try:
            taken.update(dict.fromkeys(addresses_of(host), host))
        except OSError as error:
            yield host, why(error)
    for address, host in taken.items():
        everywhere = "::" if ":" in address else "0.0.0.0"  # noqa: S104
        if address != everywhere and everywhere in taken:
            yield host, f"{everywhere} stands beside it, which is every address of that kind"


def why(error: OSError) -> str:
    """Return what the system says of an address, and what to do about it."""
    if isinstance(error, socket.gaierror):
        return "there is no machine of that name"
    match error.errno:
        case errno.EADDRINUSE:
            return (
                "another program uses it already, perhaps a gateway that still runs: end that, "
                "or choose another port (`port:` in gateway.yaml, or --port)"
            )
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; 0.0.0.0 means all that it has"
        case errno.EACCES:
            return (
                "ports below 1024 are for root, and for a service with "
                "systemd/llm-gateway.socket: choose another, like 8443"
            )
        case None:
            return error.strerror or str(error)
        case number:
            return os.strerror(number)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach what listens on ``host``."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def first_free_port() -> int:
    """Return the lowest port that needs no privilege (ip(7),
    ``ip_unprivileged_port_start``); 0 for root.
    """
    if os.geteuid() == 0:
        return 0
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024
