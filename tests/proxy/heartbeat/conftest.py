"""Fixtures of the tests in this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.elsewhere import Elsewhere
from tests.proxy.heartbeat.apis import APIS, Script


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    async with Elsewhere() as server:
        script = Script(server)
        for api in APIS.values():
            server.answers[api.path] = script.play
        yield script
