"""Fixtures of the tests in this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.elsewhere import Elsewhere


@pytest.fixture
async def server() -> AsyncIterator[Elsewhere]:
    async with Elsewhere() as server:
        yield server
