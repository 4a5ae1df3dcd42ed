"""A model as `llm-gateway models --json` prints it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def as_json(name: str, known: Mapping[str, Any], personalities: Iterable[str]) -> dict[str, Any]:
    """Return one model as `--json` prints it."""
    return {
        "name": name,
        "display_name": known.get("display_name"),
        "state": known["state"],
        "memory": known["memory"],
        "personalities": list(personalities),
        "elsewhere": bool(known["servers"]),
    }
