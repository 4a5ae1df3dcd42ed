"""Where a service's files are: those of the whole machine, or those of one user. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UNIT: Final = "llm-gateway.service"
#: The socket units of the main port, and of the redirect to https.
SOCKET: Final = "llm-gateway.socket"
REDIRECT_SOCKET: Final = "llm-gateway-redirect.socket"
#: The units of a head and of a node of a cluster on this machine.
MEMBERS: Final = ("llm-gateway-head.service", "llm-gateway-node.service")
#: The account of the system service, which systemd-sysusers(8) makes.
ACCOUNT: Final = "llm-gateway"


@dataclass(frozen=True, slots=True)
class Places:
    """The places of a service's files, all absolute. ``program``: the link to the virtual
    environment in use; ``link``: where a shell and sudo find its command.
    """

    program: Path
    link: Path
    releases: Path
    units: Path
    config: Path
    models: Path
    data: Path
    cache: Path
    user: bool

    @property
    def command(self) -> Path:
        """The program that the unit starts."""
        return self.program / "bin/llm-gateway"

    @property
    def environment(self) -> Path:
        """The file with secrets: variables of the service."""
        return self.config.with_name("environment")

    @property
    def drop_ins(self) -> Path:
        """The folder of changes to the unit."""
        return self.units / f"{UNIT}.d"

    @property
    def systemctl(self) -> tuple[str, ...]:
        """The command that talks to the service manager."""
        return ("systemctl", "--user") if self.user else ("systemctl",)

    @property
    def journalctl(self) -> tuple[str, ...]:
        """The command that shows the service's log."""
        return ("journalctl", "--quiet", "--user-unit" if self.user else "--unit", UNIT)


SYSTEM: Final = Places(
    program=Path("/opt/llm-gateway/venv"),
    link=Path("/usr/local/bin/llm-gateway"),
    releases=Path("/opt/llm-gateway/releases"),
    units=Path("/etc/systemd/system"),
    config=Path("/etc/llm-gateway/gateway.yaml"),
    models=Path("/etc/llm-gateway/models.json"),
    data=Path("/var/lib/llm-gateway"),
    cache=Path("/var/cache/llm-gateway"),
    user=False,
)


def of_user(home: Path, environ: Mapping[str, str] = os.environ) -> Places:
    """Return the places of a user's own service (XDG Base Directory Specification)."""
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share") / "llm-gateway"
    return Places(
        program=data / "program/venv",
        link=home / ".local/bin/llm-gateway",
        releases=data / "program/releases",
        units=config / "systemd/user",
        config=config / "llm-gateway/gateway.yaml",
        models=config / "llm-gateway/models.json",
        data=data,
        cache=Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "llm-gateway",
        user=True,
    )
