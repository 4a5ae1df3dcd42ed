"""Finds the configuration, and the files that it names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: The configuration of the machine's service.
SYSTEM: Final = Path("/etc/llm-gateway/gateway.yaml")


def find_config(explicit: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the configuration to use: the one asked for, else the first of the usual places."""
    if explicit is not None:
        return Path(explicit)
    places = (Path("conf/gateway.yaml"), *_of_services())
    return next((place for place in places if place.is_file()), None)


def service_variables(config: Path | None) -> Path | None:
    """Return the file of variables that systemd gives to the service whose configuration that is;
    ``None``: it is no service's.
    """
    if config is None or config.absolute() not in _of_services():
        return None
    return config.with_name("environment")


def _of_services() -> tuple[Path, Path]:
    """Return where a user's own service has its configuration, and the machine's."""
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return config_home / "llm-gateway/gateway.yaml", SYSTEM


def skeleton(name: str) -> Path:
    """Return a file shipped with the gateway (``conf/gateway.yaml``, ``data/models.json``, ...).

    A wheel has them inside the package, a checkout at its top.
    """
    package = Path(__file__).parent.parent
    inside = package / "skeleton" / name
    return inside if inside.exists() else package.parent / name


def default_root() -> Path:
    """Return where things live without a configuration file.

    The working folder if it has a ``data/models.json``, else the user's data folder (XDG Base
    Directory Specification), so that trying the gateway out litters nobody's home.
    """
    if Path("data/models.json").is_file():
        return Path.cwd()
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(data_home) / "llm-gateway"


def project_root(file: Path) -> Path:
    """Return what relative paths in the configuration ``file`` are relative to."""
    folder = file.expanduser().absolute().parent
    return folder.parent if folder.name == "conf" else folder
