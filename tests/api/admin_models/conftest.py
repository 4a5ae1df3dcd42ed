"""Fixtures of the tests in this folder."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.admin_models.box import TEXT, Box
from tests.harness import MakeGateway
from tests.tiny_model import write_tiny_model


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "LLMs"
    (folder / "deep").mkdir(parents=True)
    write_tiny_model(folder / "a.gguf")
    shutil.copy(folder / "a.gguf", folder / "b.gguf")
    shutil.copy(folder / "a.gguf", folder / "deep/c.gguf")
    return folder


@pytest.fixture
async def box(make_gateway: MakeGateway, storage: Path) -> AsyncIterator[Box]:
    async with make_gateway({}, llm_storage=str(storage)) as running:
        found = Box(running)
        found.write(TEXT)
        await running.gateway.library.refresh()
        yield found
