"""Fixtures of the tests in this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.routes.recorded import RECORDER, Recorded, model
from tests.harness import MakeGateway, Running


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path / "record")


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    shaped = {
        **model(tmp_path),
        "aliases": [],
        "setParams": {"seed": 7, "chat_template_kwargs": {"enable_thinking": False}},
        "stripParams": ["temperature", "absent"],
    }
    shaped["params"] = {**shaped["params"], "logitBias": "15+2.5"}
    models = {"m": model(tmp_path), "shaped": shaped}
    async with make_gateway(models, llama_server=RECORDER) as running:
        yield running
