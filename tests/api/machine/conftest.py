"""Fixtures of the tests in this folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.api.machine.gpus import CARD, Gpus


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Set the GPUs: name -> GiB that other programs hold, of 24."""
    file = tmp_path / "gpus"
    monkeypatch.setenv("FAKE_GPUS", str(file))

    def put(**held: float) -> None:
        found = {name: [CARD[0], CARD[1], int(gib * 1024)] for name, gib in held.items()}
        file.write_text(json.dumps(found))

    return put
