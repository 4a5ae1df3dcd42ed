"""A gateway that keeps responses, in front of a server that writes them as told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness import MakeGateway, Running
from tests.responses.writer import KEPT, Writer, models


@pytest.fixture
async def writer() -> AsyncIterator[Writer]:
    writer = Writer()
    async with writer.server:
        yield writer


@pytest.fixture
async def running(make_gateway: MakeGateway, writer: Writer) -> AsyncIterator[Running]:
    async with make_gateway(models(writer), responses=KEPT) as running:
        yield running
