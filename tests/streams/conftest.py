"""A server elsewhere whose streams go on as a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.streams.told import Told


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    told = Told()
    async with told.server:
        yield told
