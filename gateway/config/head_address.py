"""Where the head of a Ray cluster is, as people write it. Pure."""

from __future__ import annotations

import re
from typing import Final

from gateway.names import parse_name

#: Found by what runs on this machine.
AUTO: Final = "auto"
#: The ports of Ray's head, and of Ray Client.
PORT: Final = 6379
CLIENT_PORT: Final = 10001
#: What stands before the address of Ray Client.
CLIENT: Final = "ray://"


def parse_head(text: str) -> str:
    """Return ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``; where there was no port, with the
    usual one. ValueError says what is wrong.
    """
    address = text.strip()
    if address == AUTO:
        return address
    scheme = CLIENT if address.startswith(CLIENT) else ""
    there = address.removeprefix(CLIENT)
    if "://" in there or "/" in there:
        raise ValueError(f"{text!r}: give a host with its port, like 192.168.1.5:{PORT}")
    host, port = _parts(there)
    if not 1 <= int(port or 1) <= 65535:
        raise ValueError(f"{text!r}: ports are from 1 to 65535")
    name = parse_name(host)
    if str(name).startswith("*"):
        raise ValueError(f"{text!r} is the name of many machines: give that of one")
    shown = f"[{name}]" if ":" in str(name) else str(name)
    return f"{scheme}{shown}:{port or (CLIENT_PORT if scheme else PORT)}"


def shown_head(host: str, port: int) -> str:
    """Return where a head is, as :func:`parse_head` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parts(address: str) -> tuple[str, str]:
    """Return the host and the port, which may be empty; an IPv6 address may be in brackets."""
    if found := re.fullmatch(r"\[([^\]]*)\](?::(\d{1,5}))?", address):
        return found[1], found[2] or ""
    if address.count(":") == 1:
        host, _, port = address.partition(":")
        if not re.fullmatch(r"\d{1,5}", port):
            raise ValueError(f"{address!r}: behind the host comes a port, like :{PORT}")
        return host, port
    return address, ""
