"""Models on GPUs that a scripted llama-server has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.backends.model_status import ModelStatus
from tests.harness import Running, fake_model

CARD = ["NVIDIA GeForce RTX 3090", 24 * 1024, 0]  # of 24 GiB less the reserve, 22.3 are for models
Gpus = Callable[..., None]


def model(tmp_path: Path, gib: float, **entry: Any) -> dict[str, Any]:
    """One that says that it takes so much, and does."""
    fake = fake_model(tmp_path, vram=int(gib * 1024), starts=tmp_path / "starts")
    return {**fake, "memory": f"{gib}GiB", **entry}


def starts(tmp_path: Path) -> list[dict[str, Any]]:
    file = tmp_path / "starts"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def status(running: Running, name: str) -> ModelStatus:
    return next(s for s in running.gateway.scheduler.status() if s.name == name)


async def hurried(running: Running, short_for: float) -> None:
    """Memory that others hold is waited for so long only."""
    scheduler = running.gateway.scheduler
    while scheduler.accounts is None:
        await asyncio.sleep(0.01)
    limits = replace(scheduler.limits, short_for=short_for, look_every=0.1, linger=0.0)
    scheduler.limits = limits
