"""A request that ends its llama-server: it is not sent again, and nobody else pays for it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.backends.backend import State
from gateway.errors import Unprocessable
from gateway.proxy.call import Call
from gateway.proxy.trial import NotSentAgain
from gateway.proxy.unqueued import ask_unqueued
from gateway.tasks import spawn
from tests.harness import DEMO_GGUF, MakeGateway, Running, fake_model

MESSAGES: Any = [{"role": "user", "content": "hi"}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 9},
}
GRAMMAR = 'root ::= "a"'


async def chunked(body: dict[str, Any]) -> AsyncIterator[bytes]:
    yield json.dumps(body).encode()


def backend_of(running: Running) -> Any:
    backend = running.gateway.scheduler.backend("m")
    assert backend is not None
    return backend


@pytest.mark.parametrize("door", ["fast", "aiohttp"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ROUTES)
async def test_it_is_told_and_refused_when_it_comes_again(
    make_gateway: MakeGateway, tmp_path: Path, path: str, stream: bool, door: str
) -> None:
    body = {"model": "m", "grammar": GRAMMAR, "stream": stream, **ROUTES[path]}

    async def ask() -> tuple[int, Any, str]:
        how: dict[str, Any] = {"json": body}
        if door == "aiohttp":
            how = {"data": chunked(body), "headers": {"Content-Type": "application/json"}}
        async with running.request("POST", path, **how) as got:
            return got.status, got.headers, await got.text()

    async with make_gateway({"m": fake_model(tmp_path, crash="grammar")}) as running:
        status, headers, text = await ask()
        assert status == 502, text
        assert headers["x-should-retry"] == "false"
        assert "not sent again" in text
        assert "SIGSEGV" in text
        status, headers, text = await ask()
        assert status == 422
        assert headers["x-should-retry"] == "false"
        assert int(headers["Retry-After"]) > 500
        assert "died when it worked on this same request" in text
        assert ("type" in json.loads(text)) == (path == "/v1/messages")
        assert backend_of(running).starts == 1
        plain = {"model": "m", **ROUTES[path]}
        assert (await running.json("POST", path, json=plain))[0] == 200


async def test_clients_that_try_again_kill_one(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path, crash="grammar")}) as running:
        client = running.openai(max_retries=2)
        with pytest.raises(openai.InternalServerError, match="not sent again"):
            await client.chat.completions.create(
                model="m", messages=MESSAGES, extra_body={"grammar": GRAMMAR}
            )
        assert backend_of(running).deaths == 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize"])
async def test_one_alone_is_a_suspect_whatever_it_is(
    make_gateway: MakeGateway, tmp_path: Path, path: str
) -> None:
    body = {"model": "m", "messages": MESSAGES, "content": "x", "odd": 1}
    async with make_gateway({"m": fake_model(tmp_path, crash="odd")}) as running:
        status, answer = await running.json("POST", path, json=body)
        assert (status, "not sent again" in json.dumps(answer)) == (502, True)
        assert (await running.json("POST", path, json=body))[0] == 422
        assert backend_of(running).deaths == 1


async def test_the_innocent_are_answered(make_gateway: MakeGateway, tmp_path: Path) -> None:
    model = fake_model(
        tmp_path, crash="grammar", crash_at=4, crashed=tmp_path / "x", starts=tmp_path / "starts"
    )
    async with make_gateway({"m": {**model, "parallel": 4}}) as running:
        *plain, suspect = await asyncio.gather(
            *(running.chat("m", f"{number}") for number in range(3)),
            running.chat("m", grammar=GRAMMAR),
        )
        assert [status for status, _ in plain] == [200] * 3
        assert suspect[0] == 502
        assert "grammar" in suspect[1]["error"]["message"]
        backend = backend_of(running)
        assert (backend.starts, backend.deaths) == (2, 1)
        answers = await asyncio.gather(*(running.chat("m") for _ in range(4)))
        assert [status for status, _ in answers] == [200] * 4
        leases = [running.gateway.scheduler.try_lease("m") for _ in range(4)]
        assert None not in leases  # all of its slots are there again
        for lease in leases:
            assert lease is not None
            lease.release()


async def test_deaths_by_requests_make_no_model_fail_and_pause_their_key(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path, crash="grammar")}) as running:
        _, key = await running.json("POST", "/admin/keys", json={"name": "other"})
        for seed in range(3):
            assert (await running.chat("m", grammar=GRAMMAR, seed=seed))[0] == 502
        status, answer = await running.chat("m", grammar=GRAMMAR, seed=9)
        assert (status, answer["error"]["param"]) == (422, "grammar")
        assert "several requests of this key" in answer["error"]["message"]
        backend = backend_of(running)
        assert backend.deaths == 3
        assert (await running.chat("m"))[0] == 200  # plain ones go on
        body = {"model": "m", "messages": MESSAGES, "response_format": {"type": "json_object"}}
        status, _ = await running.json("POST", "/v1/chat/completions", json=body)
        assert status == 422
        other = key["key"]
        status, _ = await running.json("POST", "/v1/chat/completions", json=body, key=other)
        assert status == 200  # and so do others
        status, _ = await running.json(
            "POST", "/v1/chat/completions", json={**body, "grammar": GRAMMAR}, key=other
        )
        assert status == 502
        assert backend.deaths == 4
        assert (await running.chat("m"))[0] == 200
        assert backend.state is State.READY


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_ends_from_outside_are_no_requests_doing(
    make_gateway: MakeGateway, tmp_path: Path, number: signal.Signals
) -> None:
    model = fake_model(
        tmp_path, crash="grammar", crash_at=9, crashed=tmp_path / "x", record=tmp_path / "record"
    )
    async with make_gateway({"m": model}) as running:
        await running.gateway.scheduler.load("m")
        asking = spawn(running.chat("m"), name="chat")
        backend = backend_of(running)
        while not (tmp_path / "record").exists():
            await asyncio.sleep(0.01)
        (tmp_path / "x").touch()
        os.kill(backend.pid, number)
        assert (await asking)[0] == 200
        assert backend.starts == 2
        assert not running.gateway.scheduler.suspects


async def test_real_llama_server_that_a_grammar_ends_is_replaced(make_gateway: MakeGateway) -> None:
    model = {"params": {"model": DEMO_GGUF, "ctxSize": 512, "threads": 1}}
    grammar = "root ::= " + "(" * 200_000 + '"a"' + ")" * 200_000
    raw = json.dumps({"prompt": "hi", "grammar": grammar, "n_predict": 1}).encode()
    headers = b"Content-Type: application/json\r\n"
    # Past the limits of a request, which let no such grammar come so far.
    call = Call("m", "POST", "/completion", headers, raw)
    async with make_gateway({"m": model}, llama_server="auto") as running:
        assert (await running.chat("m", max_tokens=1))[0] == 200
        scheduler = running.gateway.scheduler
        with pytest.raises(NotSentAgain, match=r"was ended by SIG.* not sent again"):
            await ask_unqueued(scheduler, call)
        with pytest.raises(Unprocessable, match="died when it worked on this same request"):
            await ask_unqueued(scheduler, call)
        assert (await running.chat("m", max_tokens=1))[0] == 200
        assert backend_of(running).deaths == 1


async def test_a_gpu_without_memory_is_nobodys_doing(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Another program may have taken it: the request is no suspect, and not refused later."""
    said = "ggml_cuda: CUDA error: out of memory"
    body = {"model": "m", "grammar": GRAMMAR, "messages": MESSAGES}
    entry = fake_model(tmp_path, crash="grammar", says=said, starts=tmp_path / "starts")
    async with make_gateway({"m": entry}) as running:
        for _ in range(2):
            status, answer = await running.json("POST", "/v1/chat/completions", json=body)
            assert status == 502, answer
            assert answer["error"]["code"] != "unprocessable_request"
        starts = (tmp_path / "starts").read_text().splitlines()
        assert len(starts) >= 3  # it was sent once more
