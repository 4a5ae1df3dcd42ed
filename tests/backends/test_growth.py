"""Memory that a llama-server takes beyond what it took at its load is no more there for others."""

from __future__ import annotations

import logging
import os

import pytest

from gateway.backends.accounts import Accounts
from gateway.backends.capacity import Capacity
from gateway.backends.decision import SchedulingLimits
from gateway.backends.devices import Device
from gateway.backends.growth import Growth, HeldMemory
from gateway.backends.machine import Machine
from gateway.backends.memory import Needs
from gateway.backends.ram import RAM
from gateway.backends.scheduler import Scheduler
from gateway.upstream import UpstreamRequest
from tests.scripted import Box, catalog_of, until

MIB = 2**20
#: Megabytes that a machine has for models.
ROOM = 900


async def test_what_a_model_takes_later_is_counted(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    """Two fit beside each other, until one has grown: then it makes room for the other."""

    async def remember(key: str, size: int) -> None:
        pass

    def read() -> Machine:
        return Machine((Device(RAM, "RAM", 64 * 2**30, 63 * 2**30, 0),), "RAM")

    os.truncate(box.model, 2 * MIB)  # one that is empty needs nothing
    grows = box.spec("grows", takes=400)
    other = box.spec("other", memory=600 * MIB)
    scheduler = Scheduler(
        catalog_of(grows, other),
        box.environment(growth_interval=0.05),
        SchedulingLimits(),
        queue_size=8,
        queue_timeout=20,
    )
    capacity = Capacity(read, ROOM * MIB)
    scheduler.watch_memory(
        Accounts(Needs(box.folder, {}, remember), capacity, {}), SchedulingLimits()
    )
    try:
        with await scheduler.lease("grows"):
            pass
        (await scheduler.lease("other")).release()
        assert scheduler.loaded() == ["grows", "other"]
        await scheduler.unload("other")

        with await scheduler.lease("grows") as lease:
            chat = b'{"messages": [{"role": "user", "content": "x"}]}'
            await lease.backend.pool.fetch(
                UpstreamRequest("POST", "/v1/chat/completions", body=chat), timeout=20
            )
        caplog.set_level(logging.WARNING)
        await until(scheduler, lambda: sum(scheduler.status()[0].memory_on.values()) > 400 * MIB)
        assert (scheduler.status()[0].memory_held or 0) >= 400 * MIB
        (await scheduler.lease("other")).release()
        assert scheduler.loaded() == ["other"]
        told = [
            r.getMessage() for r in caplog.records if "more than when it was loaded" in r.message
        ]
        assert len(told) == 1
    finally:
        await scheduler.close()


async def test_growth_is_counted_on_gpus_and_in_ram(
    monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    growth = Growth(1, (("CUDA0", 60), ("CUDA1", 40), (RAM, 10)))
    for held, on in (
        (HeldMemory(90, 1000), {"CUDA0": 60, "CUDA1": 40, RAM: 10}),
        (HeldMemory(200, 1005), {"CUDA0": 120, "CUDA1": 80, RAM: 15}),
        (HeldMemory(None, None), {"CUDA0": 60, "CUDA1": 40, RAM: 10}),
    ):
        with subtests.test(f"{held!r:.80}"):
            monkeypatch.setattr(growth, "see", lambda held=held: held)
            assert dict(await growth.look()) == on


async def test_growth_of_what_was_planned_to_need_nothing_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    growth = Growth(1, ((RAM, 0),))
    monkeypatch.setattr(growth, "see", lambda: HeldMemory(200, None))
    assert await growth.look() == ((RAM, 0),)
