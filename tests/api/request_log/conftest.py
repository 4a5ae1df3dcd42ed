"""Fixtures of the tests in this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness import MakeGateway, Running, fake_model


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        yield running
