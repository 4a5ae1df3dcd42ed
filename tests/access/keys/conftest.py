"""Fixtures of the tests in this folder."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.access.keys import KeyRing
from tests.access.keys.watched import Watched


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
async def store(file: Path) -> Watched:
    store = await Watched.open(file)
    store.tries = asyncio.Queue()
    return store


@pytest.fixture
async def ring(store: Watched) -> AsyncIterator[KeyRing]:
    ring = await KeyRing.open(store, write_every=0)
    yield ring
    await ring.close()
