"""Fixtures of the tests in this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.proxy.heartbeat.apis import APIS, Script
from tests.remote_server import RemoteServer


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    async with RemoteServer() as server:
        script = Script(server)
        for api in APIS.values():
            server.answers[api.path] = script.play
        yield script
