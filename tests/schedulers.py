"""What tests ask of a scheduler and wait for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.backends.backend import State
from gateway.backends.lease import Lease
from gateway.backends.model_status import ModelStatus
from gateway.backends.scheduler import Scheduler
from gateway.errors import GatewayError
from gateway.tasks import spawn
from tests.scripted import until


def status(scheduler: Scheduler, model: str) -> ModelStatus:
    return next(s for s in scheduler.status() if s.name == model)


def states(scheduler: Scheduler) -> dict[str, str]:
    return {s.name: str(s.state) for s in scheduler.status()}


async def use(scheduler: Scheduler, model: str = "a") -> None:
    """One lease, given back at once."""
    (await scheduler.lease(model)).release()


def ask(scheduler: Scheduler, model: str = "a") -> asyncio.Task[Lease]:
    return spawn(scheduler.lease(model), name=f"lease {model}")


async def queued(scheduler: Scheduler, model: str, count: int) -> None:
    await until(scheduler, lambda: status(scheduler, model).queued == count)


async def in_state(scheduler: Scheduler, model: str, state: State) -> None:
    await until(scheduler, lambda: status(scheduler, model).state is state)


async def fails(awaitable: Any, kind: type[GatewayError]) -> GatewayError:
    with pytest.raises(kind) as caught:
        await awaitable
    return caught.value
