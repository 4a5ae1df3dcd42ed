"""Fixtures of the tests in this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.remote_server import RemoteServer


@pytest.fixture
async def server() -> AsyncIterator[RemoteServer]:
    async with RemoteServer() as server:
        yield server
