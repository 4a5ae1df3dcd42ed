"""What the registry keeps of models that gateways want of each other, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from gateway.cluster.registry import Registry
from gateway.cluster.told import Wanted
from gateway.tasks import cancel_and_wait, spawn


@pytest.fixture
def registry() -> Registry:
    return Registry()


async def test_those_who_want_the_same_get_one_answer(registry: Registry) -> None:
    wants = [spawn(registry.want("g", "a/b"), name="want") for _ in range(3)]
    assert await registry.wanted("g") == ["a/b"]
    await registry.answer("g", "a/b", ("backend_error", "it broke"))
    assert {await want for want in wants} == {Wanted(True, ("backend_error", "it broke"))}
    again = spawn(registry.want("g", "a/b"), name="want")
    assert await registry.wanted("g") == ["a/b"]
    await registry.answer("g", "a/b", None)
    assert await again == Wanted(True)


async def test_who_waits_for_long_is_told_so_and_may_ask_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cluster.registry._WAIT", 0.01)
    assert await registry.want("g", "a") == Wanted(over=False)
    assert await registry.wanted("g") == ["a"]
    await registry.answer("g", "a", None)  # nobody asks in this moment
    assert await registry.want("g", "a") == Wanted(over=False)  # what is so then, is told


async def test_what_nobody_wants_any_more_is_forgotten(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cluster.registry._WAIT", 0.01)
    monkeypatch.setattr("gateway.cluster.registry._UNWANTED", 0.0)
    left = [spawn(registry.want("g", f"m{number}"), name="want") for number in range(100)]
    await asyncio.sleep(0)
    await cancel_and_wait(*left)
    assert await registry.wanted("g") == []
