"""How long a model stays loaded, and who says so, with a scripted llama-server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.backend import State
from gateway.tasks import spawn
from tests.harness import MakeGateway, Running, eventually, fake_model

HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    made = fake_model(tmp_path)
    models = {
        "free": made,
        "bounded": {**made, "ttl": "10m"},
        "pinned": {**made, "pinned": True},
    }
    async with make_gateway(models) as running:
        yield running


async def plain(running: Running) -> str:
    assert running.gateway.ring is not None
    _, key = await running.gateway.ring.create("plain", "")
    return key


async def post(running: Running, path: str, model: str, **more: Any) -> dict[str, Any]:
    options = {"key": more.pop("key")} if "key" in more else {}
    body = {"model": model, "stream": False, **more}
    status, answer = await running.json("POST", path, json=body, **options)
    assert status == 200, answer
    found: dict[str, Any] = answer
    return found


async def seconds_left(running: Running, model: str) -> float | None:
    """Until it is unloaded, by /api/ps; None: it isn't loaded."""
    _, listed = await running.json("GET", "/api/ps")
    for one in listed["models"]:
        if one["name"] == f"{model}:latest":
            left = datetime.fromisoformat(one["expires_at"]) - datetime.now(UTC)
            return left.total_seconds()
    return None


YEARS = 1e9


#: Model, whether an administrator asks, keep_alive, and the seconds that are left then.
CASES: list[tuple[str, bool, Any, float, float]] = [
    ("free", False, "5m", 290, 300),
    ("free", False, -1, YEARS, 1e12),
    ("bounded", False, "5m", 290, 300),
    ("bounded", False, "24h", 590, 600),
    ("bounded", False, -1, 590, 600),
    ("bounded", True, "24h", 86_000, 86_400),
    ("bounded", True, -1, YEARS, 1e12),
    ("pinned", False, "5m", YEARS, 1e12),
]


async def test_a_model_stays_as_long_as_was_asked_and_is_allowed(
    running: Running, subtests: pytest.Subtests
) -> None:
    key = await plain(running)
    for model, admin, asked, least, most in CASES:
        with subtests.test(f"{model}, {admin}, {asked}"):
            who = {} if admin else {"key": key}
            answer = await post(running, "/api/chat", model, keep_alive=asked, **who)
            assert (answer["done"], answer["done_reason"]) == (True, "load")
            left = await seconds_left(running, model)
            assert left is not None
            assert least <= left <= most


async def test_what_was_asked_holds_until_the_next_use(running: Running) -> None:
    await post(running, "/api/chat", "bounded", messages=HELLO, keep_alive="5m")
    left = await seconds_left(running, "bounded")
    assert left is not None
    assert left <= 300
    status, _ = await running.chat("bounded")
    assert status == 200
    left = await seconds_left(running, "bounded")
    assert left is not None
    assert left > 590


def is_down(running: Running, model: str) -> bool:
    backend = running.gateway.scheduler.backend(model)
    return backend is not None and backend.state is State.STOPPED


async def test_a_model_is_unloaded_after_the_answer_that_says_so(running: Running) -> None:
    await post(running, "/api/chat", "free", messages=HELLO, keep_alive=0)
    await eventually(lambda: is_down(running, "free"), "the model is unloaded")
    assert await seconds_left(running, "free") is None


@pytest.mark.parametrize(
    ("path", "what"), [("/api/chat", "message"), ("/api/generate", "response")]
)
async def test_nothing_to_answer_loads_and_unloads(running: Running, path: str, what: str) -> None:
    answer = await post(running, path, "free", stream=True)
    assert (answer["done_reason"], what in answer) == ("load", True)
    assert not is_down(running, "free")
    answer = await post(running, path, "free", keep_alive=0)
    assert answer["done_reason"] == "unload"
    await eventually(lambda: is_down(running, "free"), "the model is unloaded")


async def test_a_model_that_others_use_is_not_unloaded_under_them(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path, hang=1)}) as running:
        scheduler = running.gateway.scheduler
        talking = spawn(running.chat("m"), name="a chat")
        await eventually(lambda: scheduler.in_flight == 1, "a request runs")
        answer = await post(running, "/api/chat", "m", keep_alive=0)
        assert answer["done_reason"] == "unload"
        assert scheduler.loaded() == ["m"]
        talking.cancel()
        await eventually(lambda: scheduler.in_flight == 0, "it has ended")
        assert scheduler.ttl("m") is None
