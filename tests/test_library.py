"""models.json as it stands on disk."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway import library
from gateway.library import Library, read_catalog
from gateway.tasks import cancel_and_wait, spawn


async def test_a_change_is_not_lost_with_who_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that asks for a model not known yet, and leaves while the file is read."""
    file = tmp_path / "models.json"
    file.write_text("{}")
    found = Library.open(file)
    reading, go = threading.Event(), threading.Event()

    def slowly(path: Path) -> Any:
        reading.set()
        go.wait(20)
        return read_catalog(path)

    monkeypatch.setattr(library, "read_catalog", slowly)
    file.write_text(json.dumps({"new": {"params": {"model": "x.gguf"}}}))
    asking = spawn(found.refresh(), name="ask")
    assert await asyncio.to_thread(reading.wait, 20)
    await cancel_and_wait(asking)
    go.set()
    await found.refresh()
    assert list(found.catalog.models) == ["new"]
