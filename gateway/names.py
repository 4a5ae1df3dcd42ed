"""Names of hosts and nodes: their form, and which ones a certificate can be for. Pure except for
the host's own.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from typing import Final

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

Name = str | ipaddress.IPv4Address | ipaddress.IPv6Address


def default_domains() -> tuple[str, ...]:
    """Return this machine's names, as programs on it and its neighbours use them."""
    own = socket.gethostname()
    domains = ["localhost", "127.0.0.1", "::1"]
    with contextlib.suppress(ValueError):  # a name that no certificate may carry
        domains.append(str(parse_name(own)))
    return tuple(dict.fromkeys(domains))


def parse_name(text: str) -> Name:
    """Return an address, a host name, or ``*.`` and a host name; ValueError says what is wrong.

    International names become their ASCII form (RFC 5890). No valid name can leave the folder as
    part of a file name.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        pass
    else:
        if "%" in text:
            raise ValueError(f"{text!r}: a zone (%...) cannot be part of a certificate")
        return address
    if "://" in text or re.search(r":\d+$", text):
        raise ValueError(f"{text!r}: give the name alone, without scheme or port")
    wildcard, host = text.startswith("*."), text.removeprefix("*.").removesuffix(".")
    try:
        host = host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise ValueError(f"{text!r} is not a host name") from None
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text!r} is not a host name, an IP address or *.NAME")
    if labels[-1].isdigit():
        raise ValueError(f"{text!r} is not an IP address")
    if wildcard and len(labels) < 2:
        raise ValueError(f"{text!r}: a wildcard needs two labels or more, like *.example.com")
    return f"*.{host}" if wildcard else host


#: What the gateway's own machine is called among nodes.
HERE: Final = "here"


def parse_node(text: str) -> str:
    """Return the name of a machine of the cluster, which is one label of a host name; ValueError
    says what is wrong.
    """
    name = text.strip().lower()
    if not _LABEL.fullmatch(name):
        raise ValueError(
            f"{text!r} is no name of a node: it has up to 63 letters (a-z), digits and hyphens, "
            "and no hyphen at its ends"
        )
    return name


def file_stem(name: Name) -> str:
    """Return the beginning of a certificate's file names: ``example.com``,
    ``_wildcard.example.com``.
    """
    return str(name).replace("*", "_wildcard").replace(":", "_")


#: Zones whose names have a meaning only on one machine or in one network (RFC 6761, 6762, 8375,
#: 9476).
_LOCAL_ZONES = frozenset({"localhost", "local", "lan", "home", "internal", "test", "invalid"})


def is_public(name: str) -> bool:
    """Return whether ``name`` has the form of a host name of the public DNS; an address
    never has.
    """
    try:
        parsed = parse_name(name)
    except ValueError:
        return False
    return isinstance(parsed, str) and not is_local(parsed)


def is_local(name: str) -> bool:
    """Return whether ``name``, in lower case, is one that the public DNS cannot have, and no
    address.

    Only its end counts: a name with odd characters, like ``a_b.example.com``, may well be in the
    DNS.
    """
    *rest, zone = name.split(".")
    return (not rest and not zone.isdigit()) or zone in _LOCAL_ZONES or name.endswith(".home.arpa")
