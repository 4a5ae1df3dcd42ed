"""Two gateways with one identity that don't know of each other, as after a copy of a machine."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.cluster import twins
from gateway.cluster.twins import Twins
from tests.cluster.machines import Machines, gateway_of, up
from tests.scripted import Box


@pytest.fixture
async def machines(folder: Path) -> AsyncIterator[Machines]:
    made = Machines(Box(folder))
    yield made
    await made.close()


@pytest.mark.parametrize("shared", [False, True])
async def test_they_are_told_unless_they_share_on_purpose(
    machines: Machines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    shared: bool,
) -> None:
    monkeypatch.setattr(twins, "_LONG", 0.5)
    await machines.start("attic")
    one, two = tmp_path / "one", tmp_path / "two"

    async with gateway_of(machines, folder=one, shared=shared) as (_, cluster):
        await up(cluster, "attic")
        shutil.copytree(one, two)
        assert not told(caplog)
        async with gateway_of(machines, folder=two, shared=shared) as (_, other):
            await up(other, "attic")
            if shared:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(6):
                        await soon(caplog)
            else:
                async with asyncio.timeout(20):
                    await soon(caplog)


def told(caplog: pytest.LogCaptureFixture) -> bool:
    return any("has the identity of this one" in record.message for record in caplog.records)


async def soon(caplog: pytest.LogCaptureFixture) -> None:
    while not told(caplog):
        await asyncio.sleep(0.05)  # nobody else is told


def test_a_question_that_is_left_over_is_no_gateway(caplog: pytest.LogCaptureFixture) -> None:
    heard = Twins()
    for _ in range(3):
        heard.hear("attic", 2)
    assert not told(caplog)
