"""A llama-server of a node that lives and does nothing, or nothing for anybody, is ended there."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from gateway.backends.backend import Environment
from gateway.backends.scheduler import Scheduler
from gateway.backends.watchdog import Patience
from gateway.errors import GatewayError
from gateway.upstream import UpstreamRequest
from tests.cluster.machines import Machines, gateway_of, up
from tests.cluster.test_placing import JSON, machines, own
from tests.scripted import until

__all__ = ["machines", "own"]

STREAM = UpstreamRequest("POST", "/v1/chat/completions", JSON, b'{"stream": true}')
CHAT = UpstreamRequest("POST", "/v1/chat/completions", JSON, b'{"messages": []}')


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Nodes that are started from now on have this patience."""
    made = partial(Environment, patience=request.param)
    monkeypatch.setattr("gateway.cluster.node.Environment", made)


async def ask(scheduler: Scheduler, request: UpstreamRequest, *, timeout: float) -> None:
    """Send a request that gets no answer."""
    with await scheduler.lease("a") as lease, pytest.raises(GatewayError):
        await lease.backend.pool.fetch(request, timeout=timeout)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("patience", [Patience(interval=0.1, stuck_after=1.0)], indirect=True)
async def test_one_that_hangs_in_the_middle_of_a_stream(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    gate = own.with_name("gate")
    os.mkfifo(gate)
    spec = machines.box.spec("a", nodes=("attic",), chunks=3, gate=gate)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await ask(scheduler, STREAM, timeout=20)
        await until(scheduler, lambda: scheduler.status()[0].deaths == 1)
        assert "has done nothing" in (scheduler.status()[0].last_error or "")


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("patience", [Patience(interval=1.0, left_after=1.0)], indirect=True)
async def test_one_that_computes_for_who_has_left(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",), busy=1)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await ask(scheduler, CHAT, timeout=1)
        await until(scheduler, lambda: scheduler.status()[0].deaths == 1, seconds=40)
        assert "that nobody waits for" in (scheduler.status()[0].last_error or "")
