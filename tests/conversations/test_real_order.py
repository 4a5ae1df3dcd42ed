"""Which slot of the bundled llama-server a request gets, and what others do to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.models.paths import resolve_model_path
from gateway.tasks import spawn
from tests.conversations.test_real_llama_server import ask, cache, entry, words
from tests.harness import DEMO_GGUF, MakeGateway, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


async def tasks(running: Running) -> list[object]:
    """The number of the last request in each slot."""
    _, slots = await running.json("GET", "/slots?model=a&autoload=true")
    return [slot.get("id_task") for slot in slots]


def said(seed: int, count: int = 60) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{seed} " + words(seed, count)}]


async def in_flight(running: Running) -> tuple[int, int]:
    _, answer = await running.json("GET", "/admin/models")
    (model,) = answer["models"]
    return model["in_flight"], model["queued"]


async def test_request_follows_the_one_that_its_conversation_is_at_work_on(
    make_gateway: MakeGateway,
) -> None:
    settings = {"llama_server": "auto", "cache": cache()}
    model = entry(parallel=2)
    model["params"]["ctxSize"] = 4096
    async with make_gateway({"a": model}, **settings) as running:
        await ask(running, "a", said(9, 300))  # how long it takes to compute is known now
        shared = said(1, 900)  # so long that it is worth waiting for
        body = {"model": "a", "messages": shared, "max_tokens": 900, "stream": True}
        async with running.request("POST", "/v1/chat/completions", json=body) as answer:
            for _ in range(8):
                await answer.content.readline()
            following = [*shared, {"role": "assistant", "content": "So."}, *said(2, 4)]
            second = spawn(ask(running, "a", following), name="follows")
            await ask(running, "a", said(3))  # another one has the other slot meanwhile
            assert not second.done()
        _, prompt, cached = await second
        assert prompt > cached > 900, "what was broken off is there, too"


async def test_who_hangs_up_while_it_waits_leaves_every_slot_free(
    make_gateway: MakeGateway,
) -> None:
    settings = {"llama_server": "auto", "cache": cache()}
    async with make_gateway({"a": entry(parallel=2)}, **settings) as running:
        body = {"model": "a", "messages": said(1), "max_tokens": 100, "stream": True}
        async with running.request("POST", "/v1/chat/completions", json=body) as answer:
            await answer.content.readline()
            second = spawn(ask(running, "a", [*said(1), *said(2, 4)]), name="follows")
            async with asyncio.timeout(20):
                while await in_flight(running) != (1, 1):
                    await asyncio.sleep(0.01)
            second.cancel()
            async with asyncio.timeout(20):
                while await in_flight(running) != (1, 0):
                    await asyncio.sleep(0.01)
            await answer.content.read()
        assert await in_flight(running) == (0, 0)
        answers = await asyncio.gather(*(ask(running, "a", said(n)) for n in (1, 5)))
        assert answers[0][2] > 60


@contextlib.asynccontextmanager
async def llama_server(log: Path) -> AsyncIterator[str]:
    """The address of a llama-server with one slot, as others start it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = await asyncio.to_thread(resolve_model_path, DEMO_GGUF, Path("unused"))
    arguments = ["--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "gateway.backends.bundled", *arguments]
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *command, "--ctx-size", "2048", "--parallel", "1", stdout=out, stderr=out
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def test_conversations_stick_to_the_servers_elsewhere_that_have_read_them(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with (
        llama_server(tmp_path / "one.log") as one,
        llama_server(tmp_path / "two.log") as two,
        make_gateway({"a": {"url": [one, two], "parallel": 2}}) as running,
    ):
        await until_both_are_up(running)
        histories = [said(n) for n in (1, 2)]
        for turn in range(4):
            # Where they took turns, the one that begins here would change servers each time.
            for history in histories if turn % 2 == 0 else histories[::-1]:
                text, prompt, cached = await ask(running, "a", history)
                assert turn == 0 or cached > prompt - 30
                history += [
                    {"role": "assistant", "content": text},
                    {"role": "user", "content": "On."},
                ]


async def until_both_are_up(running: Running) -> None:
    async with asyncio.timeout(60):
        while True:
            await running.json("POST", "/models/load", json={"model": "a"})
            _, answer = await running.json("GET", "/admin/models")
            (model,) = answer["models"]
            if [server["up"] for server in model["servers"]] == [True, True]:
                return
            await asyncio.sleep(0.2)


async def test_ten_people_on_two_slots_compute_little_more_than_what_is_new(
    make_gateway: MakeGateway,
) -> None:
    """All at once, each with a conversation of its own that begins alike."""
    model = entry(parallel=2)
    model["params"]["ctxSize"] = 2048
    model["extraArgs"] = ["--cache-ram", "0"]  # which would spare as much, as long as it runs
    computed = new = 0

    async def person(running: Running, number: int) -> None:
        nonlocal computed, new
        history = [{"role": "system", "content": words(0, 40)}, *said(number, 60)]
        before = 0
        for turn in range(3):
            text, prompt, cached = await ask(running, "a", history)
            computed += prompt - cached
            new += prompt - before
            before = prompt
            history += [{"role": "assistant", "content": text}, *said(100 * number + turn, 30)]

    settings = {"llama_server": "auto", "cache": cache()}
    async with make_gateway({"a": model}, **settings) as running:
        await asyncio.gather(*(person(running, number) for number in range(10)))
    assert computed <= 1.3 * new


STRAYS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": said(50), "n": 2}),
    ("/v1/completions", {"prompt": [words(51, 60), words(52, 60), words(53, 60)]}),
    ("/v1/completions", {"prompt": words(54, 60), "id_slot": -1}),
    ("/v1/completions", {"prompt": words(55, 60), "id_slot": 0}),
    ("/v1/completions", {"prompt": words(56, 60), "id_slot": 3}),
    ("/v1/messages", {"messages": said(57)}),
    ("/upstream/a/completion", {"prompt": words(58, 60)}),
    ("/upstream/a/v1/chat/completions", {"messages": said(59), "n": 2}),
    ("/upstream/a/slots/0?action=erase", {}),
    ("/slots/1?action=erase&model=a", {}),
    ("/tokenize", {"content": words(60, 60)}),
]


@pytest.mark.parametrize(("path", "body"), STRAYS)
async def test_no_request_destroys_what_is_in_a_slot(
    make_gateway: MakeGateway, path: str, body: dict[str, Any]
) -> None:
    """Both slots hold a conversation that isn't saved yet; both go on afterwards."""
    settings = {"llama_server": "auto", "cache": cache()}
    async with make_gateway({"a": entry(parallel=2)}, **settings) as running:
        histories = [said(1), said(2)]
        prompts = []
        for history in histories:
            text, prompt, _ = await ask(running, "a", history)
            history += [{"role": "assistant", "content": text}, {"role": "user", "content": "On."}]
            prompts.append(prompt)
        sent = {"model": "a", "max_tokens": 4, **body}
        status, answer = await running.json("POST", path, json=sent)
        assert status == 200, answer
        for history, prompt in zip(histories, prompts, strict=True):
            _, _, cached = await ask(running, "a", history)
            emptied = path.startswith("/slots/")  # that was an administrator's wish
            assert cached > prompt - 20 or emptied, "live, or read back"


async def test_question_of_an_old_client_destroys_no_conversation(
    make_gateway: MakeGateway,
) -> None:
    settings = {"llama_server": "auto", "cache": cache()}
    async with make_gateway({"a": entry()}, **settings) as running:
        text, prompt, _ = await ask(running, "a", said(1))
        query = "/chat/ask?question=" + words(2, 60).replace(" ", "+")
        async with running.request("GET", query) as answer:
            assert answer.status == 200
            await answer.read()
        history = [*said(1), {"role": "assistant", "content": text}, *said(3, 4)]
        _, _, cached = await ask(running, "a", history)
        assert cached > prompt - 8
        _, _, cached = await ask(running, "a", [{"role": "user", "content": words(2, 60)}])
        assert cached > 60, "and is one itself"


@pytest.mark.parametrize("parallel", [1, 2])
async def test_embeddings_of_a_model_that_also_writes_destroy_no_conversation(
    make_gateway: MakeGateway, parallel: int
) -> None:
    model = entry(parallel=parallel, extraArgs=["--embeddings", "--pooling", "mean"])
    async with make_gateway({"a": model}, llama_server="auto", cache=cache()) as running:
        _, prompt, _ = await ask(running, "a", said(1))
        body = {"model": "a", "input": [words(seed, 60) for seed in (2, 3, 4)]}
        status, _ = await running.json("POST", "/v1/embeddings", json=body)
        assert status == 200
        _, _, cached = await ask(running, "a", said(1))
        assert cached > prompt - 8


async def test_request_that_names_its_slot_has_it_and_goes_on_there(
    make_gateway: MakeGateway,
) -> None:
    settings = {"llama_server": "auto", "cache": cache()}
    async with make_gateway({"a": entry(parallel=2)}, **settings) as running:
        for seed, slot in ((1, 1), (2, 1), (3, 1)):
            before = await tasks(running)
            await ask(running, "a", said(seed), id_slot=slot)
            after = await tasks(running)
            assert [one != other for one, other in zip(before, after, strict=True)] == [False, True]
        _, prompt, cached = await ask(running, "a", said(3))
        assert cached > prompt - 8, "nothing of it was unknown"
        _, prompt, cached = await ask(running, "a", said(1), id_slot=0)
        assert cached > prompt - 8, "read back"


async def test_several_answers_to_a_conversation_go_on_with_it(make_gateway: MakeGateway) -> None:
    settings = {"llama_server": "auto", "cache": cache()}
    async with make_gateway({"a": entry(parallel=3)}, **settings) as running:
        await ask(running, "a", said(1))
        body = {"model": "a", "messages": [*said(1), *said(2, 4)], "max_tokens": 4, "n": 2}
        status, answer = await running.json("POST", "/v1/chat/completions", json=body)
        assert status == 200, answer
        _, prompt, cached = await ask(running, "a", [*said(1), *said(2, 4), *said(3, 4)])
        assert cached > 70
        assert prompt > cached


async def test_what_was_computed_with_other_adapters_is_not_read_back(
    make_gateway: MakeGateway,
) -> None:
    settings = {"llama_server": "auto", "cache": cache()}
    async with make_gateway({"a": entry()}, **settings) as running:

        async def hits(seed: int) -> int:
            await ask(running, "a", said(seed))
            _, answer = await running.json("GET", "/admin/models")
            spared = answer["models"][0]["prompt_cache"]
            return spared["hits"] if spared is not None else 0

        assert [await hits(seed) for seed in (1, 2, 1)] == [0, 0, 1]
        status, _ = await running.json("POST", "/lora-adapters?model=a", json=[])
        assert status == 200
        assert [await hits(seed) for seed in (2, 1, 2)] == [1, 1, 2]


@pytest.mark.parametrize("tokens", [False, True])
async def test_raw_prompt_goes_on_after_another_one(
    make_gateway: MakeGateway, tokens: bool
) -> None:
    settings = {"llama_server": "auto", "cache": cache()}
    async with make_gateway({"a": entry()}, **settings) as running:
        prompts: list[Any] = [words(1, 320), words(2, 320)]
        if tokens:
            asked = [{"model": "a", "content": prompt} for prompt in prompts]
            told = [await running.json("POST", "/tokenize", json=body) for body in asked]
            prompts = [answer["tokens"] for _, answer in told]
        cached = []
        for prompt in (*prompts, *prompts):
            body = {"model": "a", "prompt": prompt, "max_tokens": 4}
            status, answer = await running.json("POST", "/v1/completions", json=body)
            assert status == 200, answer
            cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        assert max(cached[:2]) < 20
        assert min(cached[2:]) > 300
