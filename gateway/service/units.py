"""The texts of the units: the shipped ones, for one place and one configuration. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from gateway.service.places import SYSTEM, UNIT, Places

#: Settings of the shipped unit that a user's service manager doesn't support, or doesn't need.
_SYSTEM_ONLY: Final = re.compile(
    r"(Ambient|Cache|Capability|Device|Keyring|Limit|Private|Protect|Proc|RemoveIPC|Runtime|State)\w*="
    r"|(User|Group|WorkingDirectory|Environment|Wants|After)="
)
_HEADER: Final = "# LLM-API Gateway, by `llm-gateway service install`.\n"
_SOCKET_HEADER: Final = (
    "# From gateway.yaml: after a change there, `llm-gateway service install` makes it anew.\n"
)
#: The drop-in for a machine without user namespaces.
NO_PRIVATE_USERS: Final = "no-private-users.conf"
WITHOUT_PRIVATE_USERS: Final = f"""{_HEADER}# This machine has no user namespaces, or lets nobody \
make one: the service would not start.

[Service]
PrivateUsers=no
"""
_RELOAD: Final = re.compile(r"^Type=notify\n(.*?)^ExecReload=.*?\n", re.M | re.S)


def service(shipped: str, places: Places, *, waits_for_reload: bool) -> str:
    """Return the text of the service's unit, made from the ``shipped`` one.

    ``waits_for_reload``: systemd knows a type of services whose reload it waits for; an older one
    would take them for services that tell it nothing.
    """
    text = shipped[shipped.index("[Unit]") :]
    if waits_for_reload:
        text = _RELOAD.sub(r"Type=notify-reload\n\1", text)
    text = text.replace(str(SYSTEM.command), str(places.command))
    text = text.replace(str(SYSTEM.config), str(places.config))
    text = text.replace(str(SYSTEM.environment), str(places.environment))
    if not places.user:
        return _HEADER + text
    # Nor its comments: most are about what is not here.
    lines = [
        line
        for line in text.splitlines()
        if not line.startswith("#") and not _SYSTEM_ONLY.match(line)
    ]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
    own = (
        f"[Service]\nEnvironment=LLM_GATEWAY_DATA_DIR={places.data}"
        f"\nEnvironment=LLM_GATEWAY_MODELS_FILE={places.models}"
        f"\nEnvironment=LLM_GATEWAY_CACHE__DIR={places.cache}"
    )
    text = text.replace("[Service]", own).replace("multi-user.target", "default.target")
    return f"{_HEADER}{text}\n"


def socket(name: str, description: str, addresses: Iterable[tuple[str, int]]) -> str:
    """Return the text of a socket unit; ``name``: what the gateway knows its sockets by."""
    streams = "\n".join(
        f"ListenStream=[{host}]:{port}" if ":" in host else f"ListenStream={host}:{port}"
        for host, port in addresses
    )
    return f"""{_HEADER}{_SOCKET_HEADER}
[Unit]
Description=LLM-API Gateway, {description}

[Socket]
Service={UNIT}
FileDescriptorName={name}
{streams}
BindIPv6Only=ipv6-only
# Connections that wait while the gateway restarts.
Backlog=4096

[Install]
WantedBy=sockets.target
"""


def gpu_drop_ins(vendors: Iterable[str], shipped: Mapping[str, str]) -> dict[str, str]:
    """Return the drop-ins for GPUs of these PCI vendors, like ``0x10de``: file name -> text."""
    wanted = {"0x10de": "cuda.conf", "0x1002": "rocm.conf"}
    names = {wanted[vendor] for vendor in vendors if vendor in wanted}
    return {name: shipped[name] for name in sorted(names)}
