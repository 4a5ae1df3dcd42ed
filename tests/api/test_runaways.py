"""A real llama-server that a grammar makes compute without end: it is nobody else's problem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.backends.backend import State
from gateway.backends.watchdog import Patience
from gateway.tasks import spawn
from tests.harness import MakeGateway, Running, fake_model
from tests.scripted import until
from tests.vulkan_build import REAL, RUNS

pytestmark = pytest.mark.slow

QUICK = Patience(interval=0.1, overdue_after=0.8, left_after=0.6)
#: Each token of it takes llama-server many seconds to choose.
GRAMMAR = "root ::= " + '("a"|"a")?' * 3000
SECRET = "a-word-of-the-prompt"
MESSAGES = [{"role": "user", "content": SECRET}]
#: What each dialect asks with.
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 9},
}
PLAIN = {"prompt": "the", "n_predict": 2, "temperature": 0, "logit_bias": [["a", 100]]}


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(make_gateway: MakeGateway, tiny_model: Path) -> Start:
    """A gateway with a real llama-server, that has loaded its model."""

    @asynccontextmanager
    async def started(server: str | Path = "auto") -> AsyncIterator[Running]:
        params = {"model": str(tiny_model), "ctxSize": 1024, "threads": 1}
        models = {"m": {"params": params, "parallel": 2}}
        # What the limits for grammars let through, and what has no grammar, can be as bad.
        limits = {"heartbeat": "0.2s", "request": {"grammar_choices": 10**9}}
        options: dict[str, Any] = {"patience": QUICK, "limits": limits}
        async with make_gateway(models, llama_server=str(server), **options) as running:
            await running.gateway.scheduler.load("m")
            yield running

    return started


SERVERS = pytest.mark.parametrize(
    "server",
    [
        "auto",
        pytest.param(REAL, marks=pytest.mark.skipif(not RUNS, reason="no processor for it")),
    ],
    ids=["bundled", "llama-server"],
)


async def ask(running: Running, path: str, body: dict[str, Any]) -> tuple[int, str]:
    async with running.request("POST", path, json={"model": "m", **body}) as response:
        text = b""
        try:
            async for piece in response.content.iter_any():
                text += piece
        except aiohttp.ClientPayloadError:
            text += b"<cut off>"
        return response.status, text.decode()


async def begun(running: Running) -> None:
    """Wait until llama-server has taken up a request."""
    backend = running.gateway.scheduler.backend("m")
    assert backend is not None
    heard = asyncio.Event()
    stop_listening = backend.log.listen(heard.set)
    try:
        async with asyncio.timeout(10):
            while "processing task" not in "\n".join(backend.log.tail()):
                heard.clear()
                await heard.wait()
    finally:
        stop_listening()


async def noted(running: Running) -> str:
    _, answer = await running.json("GET", "/chat/errors")
    text = json.dumps(answer)
    assert SECRET not in text
    return text


def deaths(running: Running) -> int:
    return running.gateway.scheduler.status()[0].deaths


@SERVERS
async def test_work_that_nobody_waits_for_is_ended(start: Start, server: str | Path) -> None:
    async with start(server) as running:
        scheduler = running.gateway.scheduler
        body = {"messages": MESSAGES, "grammar": GRAMMAR}
        hostile = spawn(ask(running, "/v1/chat/completions", body), name="hostile")
        await begun(running)
        hostile.cancel()
        await until(scheduler, lambda: deaths(running) == 1, seconds=30)
        await until(scheduler, lambda: scheduler.status()[0].state is State.BACKOFF)
        errors = await noted(running)
        assert "that nobody waits for and was ended" in errors
        assert "a request to /v1/chat/completions with a `grammar` of" in errors
        assert "whose client had left" in errors
        assert scheduler.status()[0].pid is None  # nobody wants it

        assert (await ask(running, "/completion", PLAIN))[0] == 200
        assert scheduler.status()[0].state is State.READY


@SERVERS
async def test_who_came_meanwhile_is_served(start: Start, server: str | Path) -> None:
    async with start(server) as running:
        body = {"messages": MESSAGES, "grammar": GRAMMAR, "stream": True}
        hostile = spawn(ask(running, "/v1/chat/completions", body), name="hostile")
        await begun(running)
        hostile.cancel()
        others = [ask(running, "/completion", PLAIN) for _ in range(4)]
        assert [status for status, _ in await asyncio.gather(*others)] == [200] * 4
        assert deaths(running) == 1


@pytest.mark.parametrize(
    ("path", "body", "stream"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}, True),
        ("/completion", {"prompt": SECRET}, False),
    ],
)
async def test_who_has_done_it_is_told(
    start: Start, path: str, body: dict[str, Any], stream: bool
) -> None:
    async with start() as running:
        asked = ask(running, path, {**body, "stream": stream, "grammar": GRAMMAR})
        hostile = spawn(asked, name="hostile")
        await begun(running)
        other = spawn(ask(running, "/completion", PLAIN), name="other")
        status, text = await hostile
        assert (await other)[0] == 200  # after the death, so that is noted
        assert deaths(running) == 1
        assert status == (200 if stream else 422)
        error = json.loads(last_event(text) if stream else text)["error"]
        assert "Most likely that comes of its `grammar`: make it simpler." in error["message"]
        assert error["code"] == "runaway_request"
        assert error["param"] == "grammar"
        assert f"a request to {path} with a `grammar` of" in await noted(running)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", ROUTES)
async def test_runaway_is_told_in_the_shape_of_each_api(
    make_gateway: MakeGateway, tmp_path: Path, path: str, stream: bool
) -> None:
    models = {"m": fake_model(tmp_path, busy=1)}
    quick = Patience(interval=0.1, overdue_after=0.2)
    async with make_gateway(models, patience=quick, limits={"heartbeat": "0.1s"}) as running:
        status, text = await ask(running, path, {**ROUTES[path], "stream": stream})
        await until(running.gateway.scheduler, lambda: deaths(running) == 1)
    assert status == (200 if stream else 422)
    answer = json.loads(last_event(text) if stream else text)
    if path == "/v1/responses" and stream:
        assert answer["type"] == "response.failed"
        answer = answer["response"]
    elif path == "/v1/messages":
        assert answer["type"] == "error"
        assert answer["error"]["type"] == "invalid_request_error"
    if path != "/v1/messages":
        assert answer["error"]["code"] == "runaway_request"
    assert "Change it before you send it again." in answer["error"]["message"]


def last_event(text: str) -> str:
    return text.rpartition("data: ")[2].partition("\n")[0]
