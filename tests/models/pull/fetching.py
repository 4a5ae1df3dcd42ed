"""A model on a hub, and fetching it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.models.fetching import PullProgress
from gateway.models.hub import Reference, choose
from gateway.models.hub_client import Hub
from gateway.models.pull import PullPlan, pull
from tests.hub_server import HubServer

NAME = "me/thing-GGUF"
REFERENCE = Reference("me", "thing-GGUF")


def planned(server: HubServer, storage: Path, wanted: str = "Q4_0") -> tuple[PullPlan, Hub]:
    hub = Hub(server.url)
    found = hub.repository(REFERENCE)
    variant = choose(found, wanted)
    return PullPlan(found, variant, found.projector_for(variant), storage), hub


def fetched(
    server: HubServer, storage: Path, wanted: str = "Q4_0", **options: Any
) -> list[PullProgress]:
    told: list[PullProgress] = []
    pull(*planned(server, storage, wanted), told.append, **options)
    return told


def files(storage: Path) -> dict[str, int]:
    return {
        path.relative_to(storage).as_posix(): path.stat().st_size
        for path in storage.rglob("*")
        if path.is_file()
    }
