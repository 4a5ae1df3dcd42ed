"""Whether Ray is installed, of the extra ``cluster``. Ray itself isn't imported."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

#: The lower bound of the extra ``cluster`` in pyproject.toml.
_LEAST: Final = (2, 60)


def why_no_ray() -> str | None:
    """Return why Ray can't be used here, and what to do; ``None``: it can."""
    least = ".".join(map(str, _LEAST))
    try:
        there = version("ray")
    except PackageNotFoundError:
        return f"needs Ray, which isn't installed: pip install 'ray>={least}'"
    major, minor, *_ = (*there.split("."), "0")
    if major.isdigit() and minor.isdigit() and (int(major), int(minor)) < _LEAST:
        return f"needs Ray {least} or newer, and {there} is installed: pip install 'ray>={least}'"
    return None


def has_ray_client() -> bool:
    """Return whether Ray Client can be used, for addresses with ``ray://``."""
    return find_spec("grpc") is not None
