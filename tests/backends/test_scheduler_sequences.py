"""What must hold whatever happens to several models, in whatever order, at whatever moment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.backends.backend import State
from gateway.backends.decision import SchedulingLimits
from gateway.backends.lease import Lease
from gateway.backends.scheduler import Scheduler
from gateway.errors import GatewayError
from gateway.models.catalog import Catalog
from gateway.models.model import Model
from gateway.tasks import spawn
from gateway.upstream import UpstreamRequest
from tests.scripted import Box, catalog_of

S = State
#: The states that may follow each, for a model with a process.
NEXT = {
    S.STOPPED: {S.STARTING},
    S.STARTING: {S.READY, S.STOPPING, S.STOPPED},
    S.READY: {S.DRAINING, S.STOPPING},
    S.DRAINING: {S.READY, S.STOPPING},
    S.STOPPING: {S.STOPPED, S.BACKOFF, S.FAILED},
    S.BACKOFF: {S.STARTING, S.STOPPED},
    S.FAILED: {S.STARTING, S.STOPPED},
}
PROCESS = {S.STARTING, S.READY, S.DRAINING, S.STOPPING}
NAMES = "abcd"
MAX_LOADED = 2


class Sequence:
    """One random sequence: what it does next, and what it has under way."""

    def __init__(self, box: Box, seed: int) -> None:
        self._box = box
        self._dice = random.Random(seed)
        self._specs = {name: self._variant(name) for name in NAMES}
        self.scheduler = Scheduler(
            self._catalog(),
            box.environment(quick_deaths_allowed=1000, backoff_first=0.01, backoff_cap=0.02),
            SchedulingLimits(max_loaded=MAX_LOADED, patience=0.05, linger=0.0),
            queue_size=100,
            queue_timeout=60.0,
        )
        self.leases: list[Lease] = []
        self.asking: list[asyncio.Task[Lease]] = []
        self.calls: list[asyncio.Task[None]] = []
        self.scheduler.subscribe(self.check)
        self.broken: list[str] = []

    def _variant(self, name: str) -> Model:
        dice = self._dice
        options: dict[str, Any] = dice.choice(
            [{}, {}, {"start_delay": 0.05}, {"model": "nowhere.gguf"}]
        )
        if dice.random() < 0.2:
            options = {"exit": 3}
        return self._box.spec(
            name, ctx=dice.choice([8, 16]), parallel=dice.choice([1, 2]), **options
        )

    def _catalog(self) -> Catalog:
        return catalog_of(*(self._specs[name] for name in sorted(self._specs)))

    def check(self) -> None:
        """Called after every decision. What it finds is told by the test: this raises nothing."""
        statuses = self.scheduler.status()
        if sum(s.state in PROCESS for s in statuses) > MAX_LOADED:
            self.broken.append(f"too many: {[(s.name, str(s.state)) for s in statuses]}")
        if self.scheduler.in_flight < sum(s.in_flight for s in statuses):
            self.broken.append("leases are counted twice")
        for s in statuses:
            if s.state is S.READY and not 0 <= s.in_flight <= max(s.slots, 2):
                self.broken.append(f"{s.name} has {s.in_flight} requests in {s.slots} slots")

    async def run(self, steps: int) -> None:
        """Do so many things, with pauses of a few ticks or of milliseconds between them."""
        does = [self.ask] * 6 + [self.release] * 4 + [self.hang_up] * 2 + [self.load]
        does += [self.unload] * 2 + [self.kill, self.change, self.change, self.remove]
        for _ in range(steps):
            self._dice.choice(does)()
            for _ in range(self._dice.choice([0, 0, 1, 2, 3, 5, 8])):
                await asyncio.sleep(0)
            if self._dice.random() < 0.4:
                await asyncio.sleep(self._dice.random() * 0.1)  # processes do something, too

    def ask(self) -> None:
        name = self._dice.choice(NAMES)
        self.asking.append(spawn(self._ask(name), name=f"lease {name}"))

    async def _ask(self, name: str) -> Lease:
        lease = await self.scheduler.lease(name)
        self.leases.append(lease)
        return lease

    def release(self) -> None:
        if self.leases:
            self.leases.pop(self._dice.randrange(len(self.leases))).release()

    def hang_up(self) -> None:
        if self.asking:
            self._dice.choice(self.asking).cancel()

    def load(self) -> None:
        name, explicit = self._dice.choice(NAMES), self._dice.random() < 0.5
        loading = self.scheduler.load(name, explicit=explicit)
        self.calls.append(spawn(loading, name=f"load {name}"))

    def unload(self) -> None:
        name = self._dice.choice(NAMES)
        self.calls.append(spawn(self.scheduler.unload(name), name=f"unload {name}"))

    def kill(self) -> None:
        if pids := self._box.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._dice.choice(pids), signal.SIGKILL)

    def change(self) -> None:
        name = self._dice.choice(NAMES)
        self._specs[name] = self._variant(name)
        self.scheduler.apply(self._catalog())

    def remove(self) -> None:
        self._specs.pop(self._dice.choice(NAMES), None)
        self.scheduler.apply(self._catalog())

    async def come_to_rest(self) -> None:
        """Give everything back until everyone has a lease, or an error that says why not."""
        waiting = {*self.asking, *self.calls}
        while self.leases or any(not task.done() for task in waiting):
            while self.leases:
                self.leases.pop().release()
            await asyncio.wait(
                waiting, timeout=0.01
            )  # none may ever end without a lease of its own
        for task in waiting:
            if not task.cancelled() and (error := task.exception()) is not None:
                assert isinstance(error, GatewayError), error

    async def every_model_still_answers(self) -> None:
        self._specs = {name: self._box.spec(name) for name in NAMES}
        self.scheduler.apply(self._catalog())
        for name in NAMES:
            with await self.scheduler.lease(name) as lease:
                health = await lease.backend.pool.fetch(
                    UpstreamRequest("GET", "/health"), timeout=20
                )
                assert health.status == 200


def transitions(caplog: pytest.LogCaptureFixture) -> Iterator[tuple[State, State]]:
    for record in caplog.records:
        if record.msg == "model %s: %s -> %s" and isinstance(record.args, tuple):
            _, before, after = record.args
            yield State(str(before)), State(str(after))


@pytest.mark.parametrize("seed", range(6))
async def test_any_sequence_keeps_the_limits_and_comes_to_rest(
    box: Box, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.INFO, "gateway.backends.backend")
    sequence = Sequence(box, seed)
    scheduler = sequence.scheduler
    try:
        async with asyncio.timeout(100):
            await sequence.run(60)
            await sequence.come_to_rest()
            assert scheduler.in_flight == 0
            assert all(s.in_flight == s.queued == 0 for s in scheduler.status())
            await sequence.every_model_still_answers()
    finally:
        await scheduler.close()
    assert sequence.broken == []
    seen = set(transitions(caplog))
    assert seen
    assert {(a, b) for a, b in seen if b not in NEXT[a]} == set()
    assert max(len(start["beside"]) for start in box.starts()) < MAX_LOADED
    assert box.alive() == []
