"""A gateway, and its nodes, show certificates that don't end while they run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import ClassVar

import pytest

from gateway.backends.scheduler import Scheduler
from gateway.cluster import ca, identity
from gateway.cluster.known_node import KnownNode
from gateway.errors import Unavailable
from gateway.secret import Secret
from gateway.tasks import cancel_and_wait, spawn
from gateway.upstream import UpstreamRequest
from tests.cluster.machines import Machines, gateway_of, up
from tests.scripted import Box


class Clock(datetime):
    """The clock of the gateway's machine, which is ``off`` by so much."""

    off: ClassVar = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.off


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(Clock, "off", timedelta())
    monkeypatch.setattr(ca, "datetime", Clock)
    monkeypatch.setattr(identity, "datetime", Clock)
    monkeypatch.setattr(identity, "_LOOK", 0.02)
    return Clock


@pytest.fixture
async def machines(folder: Path) -> AsyncIterator[Machines]:
    made = Machines(Box(folder))
    yield made
    await made.close()


async def answer(scheduler: Scheduler) -> int:
    with await scheduler.lease("a") as lease:
        request = UpstreamRequest("GET", "/health")
        return (await lease.backend.pool.fetch(request, timeout=10)).status


@pytest.mark.parametrize("days", [-95, 3], ids=["they have ended", "they begin later"])
async def test_where_the_clock_was_wrong_they_are_made_anew(
    machines: Machines, tmp_path: Path, clock: type[Clock], days: int
) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    clock.off = timedelta(days=-200)  # the authority is older
    identity.Identity(tmp_path, lambda: None).open()
    clock.off = timedelta(days=days)
    async with gateway_of(machines, spec, folder=tmp_path) as (scheduler, cluster):
        with pytest.raises(Unavailable, match="are the clocks of both machines right"):
            await scheduler.load("a")
        clock.off = timedelta()
        await up(cluster, "attic")
        assert await answer(scheduler) == 200


async def test_they_are_made_anew_long_before_they_end(
    machines: Machines, tmp_path: Path, clock: type[Clock]
) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    clock.off = timedelta(days=-40)
    async with gateway_of(machines, spec, folder=tmp_path) as (scheduler, cluster):
        await up(cluster, "attic")
        assert await answer(scheduler) == 200
        (node,) = cluster.nodes
        first = await shown_by(node)
        clock.off = timedelta()
        async with asyncio.timeout(10):
            while await shown_by(node) == first:
                pass
        assert await answer(scheduler) == 200
        assert len(machines.box.starts()) == 1


async def shown_by(node: KnownNode) -> str:
    """When the certificate ends that its front shows."""
    front = node.front(Secret(""))
    _, writer = await asyncio.open_connection(
        front.host, front.port, ssl=front.ssl_context, server_hostname=front.server_name
    )
    shown = writer.get_extra_info("peercert")
    writer.close()
    return str(shown["notAfter"])


async def test_one_that_is_good_for_long_is_kept(tmp_path: Path, clock: type[Clock]) -> None:
    renewed = asyncio.Event()
    kept = identity.Identity(tmp_path, renewed.set)
    kept.open()
    keeping = spawn(kept.keep(), name="keep it")
    clock.off = timedelta(days=29)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await renewed.wait()
    clock.off = timedelta(days=31)
    async with asyncio.timeout(10):
        await renewed.wait()
    await cancel_and_wait(keeping)
