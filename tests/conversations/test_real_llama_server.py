"""Conversations that come back after a swap, with the bundled llama-server and the demo model."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.conversations.files import CacheFiles
from gateway.proxy.sse import usage_of
from tests.harness import (
    DEMO_GGUF,
    MakeGateway,
    Running,
    Served,
    fake_model,
    project,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WORDS = "the cat sat on a mat while old dogs ran over green hills and said nothing of note".split()


def entry(**more: Any) -> dict[str, Any]:
    """A model of models.json on one thread, so that it computes in one order."""
    params = {"model": DEMO_GGUF, "ctxSize": 1024, "threads": 1, "threadsBatch": 1}
    return {"params": params, **more}


def words(seed: int, count: int) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(count))


async def ask(
    running: Running, model: str, messages: list[dict[str, str]], *, key: Any = None, **more: Any
) -> tuple[str, int, int]:
    """The text of an answer, the tokens of its prompt, and how many of them were cached."""
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 8, **more}
    path = "/v1/chat/completions"
    status, answer = await running.json("POST", path, json=body, key=key or running.key)
    assert status == 200, answer
    usage = answer["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return answer["choices"][0]["message"]["content"], usage["prompt_tokens"], cached


def cache(**more: Any) -> dict[str, Any]:
    return {"enabled": True, "min_tokens": 48, **more}


async def test_conversation_goes_on_where_it_was_after_a_swap(make_gateway: MakeGateway) -> None:
    models = {"a": entry(), "b": entry()}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}}
    async with make_gateway(models, cache=cache(), **settings) as running:
        folder = Path(running.gateway.settings.data_dir) / "cache"
        messages = [{"role": "user", "content": "Tell me. " + words(1, 60)}]
        text, prompt, _ = await ask(running, "a", messages)
        await ask(running, "b", [{"role": "user", "content": "Hi"}])
        messages += [
            {"role": "assistant", "content": text},
            {"role": "user", "content": "Go on."},
        ]
        _, _, cached = await ask(running, "a", messages)
        assert cached >= prompt
        _, answer = await running.json("GET", "/admin/models")
        (spared,) = [m["prompt_cache"] for m in answer["models"] if m["name"] == "a"]
        assert spared["switched_off"] is None
        assert (spared["hits"], spared["tokens"]) == (1, cached)
        assert spared["seconds"] > 0
    assert len([*folder.glob("*.kv")]) == 1, "only its longest"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


async def test_conversation_is_read_back_for_its_own_key_only(make_gateway: MakeGateway) -> None:
    models = {"a": entry(), "b": entry()}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    body = {"model": "a", "messages": [{"role": "user", "content": words(2, 60)}]}
    async with make_gateway(models, **settings) as running:
        ring = running.gateway.ring
        assert ring is not None
        _, guest = await ring.create("guest", "")

        async def cached(key: str) -> int:
            _, answer = await running.json(
                "POST", "/v1/chat/completions", json={**body, "max_tokens": 2}, key=key
            )
            await ask(running, "b", [{"role": "user", "content": "Hi"}])
            return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

        assert [await cached(running.key), await cached(guest)] == [0, 0]
        assert min(await cached(running.key), await cached(guest)) > 60


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
async def test_damaged_file_is_not_read(make_gateway: MakeGateway, damage: str) -> None:
    models = {"a": entry(), "b": entry()}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    async with make_gateway(models, **settings) as running:
        messages = [{"role": "user", "content": "Tell me. " + words(3, 40)}]
        text, prompt, _ = await ask(running, "a", messages)
        await ask(running, "b", [{"role": "user", "content": "Hi"}])
        folder = Path(running.gateway.settings.data_dir) / "cache"
        (file,) = folder.glob("*.kv")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(content if damage == "flipped" else content[:-1])
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "On."}]
        _, _, cached = await ask(running, "a", messages)
        assert cached < prompt
        backend = running.gateway.scheduler.backend("a")
        assert backend is not None
        assert backend.deaths == 0
        assert not file.exists()


async def test_answers_after_a_restore_are_those_of_a_warm_cache(make_gateway: MakeGateway) -> None:
    """Random conversations in turn in one slot, with branches and edits, against each by itself.

    What is computed anew isn't the same to the last bit, so nothing of an earlier turn may be.
    """
    random_ = random.Random(15)
    plans = {number: plan(random_) for number in range(CONVERSATIONS)}
    turns = [number for number, steps in plans.items() for _ in steps]
    random_.shuffle(turns)
    one_by_one = [number for number, steps in plans.items() for _ in steps]
    saves = cache(min_tokens=16)
    async with make_gateway(
        {"a": entry()}, folder="mixed", llama_server="auto", cache=saves
    ) as running:
        mixed = await played(running, plans, turns)
    async with make_gateway({"a": entry()}, folder="alone", llama_server="auto") as running:
        alone = await played(running, plans, one_by_one)
    for number, answers in alone.items():
        for (text, cached), (warm_text, warm) in zip(mixed[number], answers, strict=True):
            assert cached >= warm
            assert text == warm_text


async def played(
    running: Running, plans: dict[int, list[tuple[int, str]]], turns: list[int]
) -> dict[int, list[tuple[str, int]]]:
    """Texts of each conversation, and its cached tokens, but for those of its first turn."""
    steps = {number: iter(plan) for number, plan in plans.items()}
    histories: dict[int, list[dict[str, str]]] = {number: [] for number in plans}
    answers: dict[int, list[tuple[str, int]]] = {number: [] for number in plans}
    for number in turns:
        asked = take(histories[number], next(steps[number]))
        text, _, cached = await ask(running, "a", asked)
        answers[number].append((text, cached if histories[number] else 0))
        histories[number] = [*asked, {"role": "assistant", "content": text}]
    return answers


CONVERSATIONS = 6


def plan(random_: random.Random) -> list[tuple[int, str]]:
    """Steps of one conversation: how many turns of it are taken back first, and what is said."""
    first = f"{random_.randrange(10**6)} " + words(random_.randrange(10**6), 30)
    later = [
        (random_.choice((0, 0, 0, 1, 2)), words(random_.randrange(10**6), 6))
        for _ in range(random_.randrange(1, 5))
    ]
    return [(0, first), *later]


def take(history: list[dict[str, str]], step: tuple[int, str]) -> list[dict[str, str]]:
    back, said = step
    kept = history[: max(2, len(history) - 2 * back)]
    return [*kept, {"role": "user", "content": said}]


async def test_two_conversations_in_two_slots_stay_where_they_are(
    make_gateway: MakeGateway,
) -> None:
    settings = {"llama_server": "auto", "cache": cache()}
    async with make_gateway({"a": entry(parallel=2)}, **settings) as running:
        histories = [[{"role": "user", "content": f"{n} " + words(n, 30)}] for n in range(3)]
        for turn in range(2):
            for history in histories:
                text, prompt, cached = await ask(running, "a", history)
                assert turn == 0 or cached > prompt - 20, "live, or read back into another slot"
                history += [
                    {"role": "assistant", "content": text},
                    {"role": "user", "content": "On."},
                ]


async def test_conversation_outlives_a_gateway_that_was_killed(tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"a": entry()}, llama_server="auto", cache=cache())
    messages: list[Any] = [{"role": "user", "content": "Tell me. " + words(5, 40)}]
    served = Served(tmp_path / "p", "--config", str(config))
    try:
        key = served.key
        async with served.async_client() as client:
            answer = await client.chat.completions.create(
                model="a", messages=messages, temperature=0, max_tokens=8
            )
        folder = tmp_path / "p/data/cache"
        found = lambda: bool([*folder.glob("*.json")])  # noqa: E731
        await asyncio.to_thread(wait_until, found, 30, "it is saved while nobody asks")
    finally:
        served.stop(signal.SIGKILL)
    messages += [
        {"role": "assistant", "content": answer.choices[0].message.content or ""},
        {"role": "user", "content": "Go on."},
    ]
    served = Served(tmp_path / "p", "--config", str(config))
    try:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=key) as client:
            again = await client.chat.completions.create(
                model="a", messages=messages, temperature=0, max_tokens=8
            )
        first, second = usage_of(answer.model_dump()), usage_of(again.model_dump())
        assert first is not None
        assert second is not None
        assert second.cached_tokens > first.prompt_tokens - 8
    finally:
        assert served.stop() == 0


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/completions"])
async def test_every_dialect_goes_on_after_a_swap(make_gateway: MakeGateway, path: str) -> None:
    models = {"a": entry(), "b": entry()}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    text = words(6, 300 if path == "/v1/completions" else 40)
    said = [{"role": "user", "content": text}]
    body: dict[str, Any] = {"model": "a", "temperature": 0}
    body |= {
        "/v1/messages": {"messages": said, "max_tokens": 4, "system": "Be kind."},
        "/v1/responses": {"input": said, "max_output_tokens": 4, "instructions": "Be kind."},
        "/v1/completions": {"prompt": text, "max_tokens": 4},
    }[path]
    async with make_gateway(models, **settings) as running:
        status, first = await running.json("POST", path, json=body)
        assert status == 200, first
        await ask(running, "b", [{"role": "user", "content": "Hi"}])
        status, second = await running.json("POST", path, json=body)
        assert status == 200
        usage = usage_of(second)
        assert usage is not None
        assert usage.cached_tokens > usage.prompt_tokens - 8


async def test_stream_goes_on_after_a_swap_and_so_does_what_was_broken_off(
    make_gateway: MakeGateway,
) -> None:
    models = {"a": entry(), "b": entry()}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    async with make_gateway(models, **settings) as running:
        # Long enough to be worth the second that a save may take on a busy machine: a swap never
        # waits longer than the prompt would take to compute.
        messages = [{"role": "user", "content": words(7, 400)}]
        text, prompt, _ = await ask(running, "a", messages)
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "On."}]
        body = {"model": "a", "messages": messages, "max_tokens": 300, "stream": True}
        async with running.request("POST", "/v1/chat/completions", json=body) as answer:
            await answer.content.readline()  # and hung up on
        await ask(running, "b", [{"role": "user", "content": "Hi"}])
        _, _, cached = await ask(running, "a", messages)
        assert cached >= prompt - 8


@pytest.mark.parametrize("asked", ["no-store", "No-Store ,no-cache"])
async def test_request_may_ask_not_to_be_saved(make_gateway: MakeGateway, asked: str) -> None:
    settings = {"llama_server": "auto", "cache": cache()}
    messages = [{"role": "user", "content": words(8, 40)}]
    async with make_gateway({"a": entry()}, **settings) as running:
        body = {"model": "a", "messages": messages, "max_tokens": 2}
        headers = {"X-Cache": asked}
        status, _ = await running.json("POST", "/v1/chat/completions", json=body, headers=headers)
        assert status == 200
        folder = Path(running.gateway.settings.data_dir) / "cache"
    assert [file.name for file in folder.iterdir()] == ["lock"]


@pytest.mark.parametrize("problem", ["a file", "in use"])
async def test_folder_that_cannot_be_used_harms_nothing(
    make_gateway: MakeGateway, tmp_path: Path, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    with contextlib.ExitStack() as stack:
        if problem == "a file":
            folder.write_text("")
        else:
            other = CacheFiles(folder, "auto")
            other.open()
            stack.callback(other.close)
        settings = {"llama_server": "auto", "cache": cache(dir=str(folder))}
        async with make_gateway({"a": entry()}, **settings) as running:
            await ask(running, "a", [{"role": "user", "content": words(9, 40)}])
    assert "conversations are not saved" in caplog.text


async def test_no_room_on_the_disk_is_said_once_and_harms_nothing(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    models = {"a": entry(), "b": entry()}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}}
    async with make_gateway(models, cache=cache(max_size=0), **settings) as running:
        for model in "abab":
            await ask(running, model, [{"role": "user", "content": words(10, 40)}])
    assert caplog.text.count("conversations are not saved") == 1


async def test_conversations_of_a_key_go_with_it(make_gateway: MakeGateway) -> None:
    models = {"a": entry(), "b": entry()}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    async with make_gateway(models, **settings) as running:
        ring = running.gateway.ring
        assert ring is not None
        record, key = await ring.create("guest", "")
        folder = Path(running.gateway.settings.data_dir) / "cache"
        body = {"model": "a", "messages": [{"role": "user", "content": words(11, 40)}]}
        for asking in (key, running.key):
            status, _ = await running.json(
                "POST", "/v1/chat/completions", json={**body, "max_tokens": 2}, key=asking
            )
            assert status == 200
        await ask(running, "b", [{"role": "user", "content": "Hi"}])
        assert len([*folder.glob("*.json")]) == 2
        await ring.revoke(record.id)
    assert len([*folder.glob("*.json")]) == 1


async def test_administrator_removes_what_is_saved(make_gateway: MakeGateway) -> None:
    models = {"a": entry(), "b": entry()}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    async with make_gateway(models, **settings) as running:
        folder = Path(running.gateway.settings.data_dir) / "cache"
        for model, seed in (("a", 12), ("b", 13), ("a", 14)):
            await ask(running, model, [{"role": "user", "content": words(seed, 40)}])
        for query, code in (("?model=c", "model_not_found"), ("?key=nobody", "key_not_found")):
            status, answer = await running.json("DELETE", f"/admin/cache{query}")
            assert (status, answer["error"]["code"]) == (404, code)
        for query, removed, left in (("?model=b", 1, 1), ("?model=b", 0, 1), ("", 1, 0)):
            answer = await running.json("DELETE", f"/admin/cache{query}")
            assert answer == (200, {"removed": removed})
            assert len([*folder.glob("*.kv")]) == left
        status, answer = await running.json("DELETE", "/admin/cache?keys=x")
        assert (status, answer["error"]["param"]) == (400, "keys")
    assert [*folder.glob("*.kv")] == [], "nor is what was in a slot"


async def test_nothing_is_removed_where_nothing_is_saved(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"a": fake_model(tmp_path)}) as running:
        assert await running.json("DELETE", "/admin/cache") == (200, {"removed": 0})


async def test_model_whose_llama_server_uses_nothing_of_it_is_left_alone(
    make_gateway: MakeGateway,
) -> None:
    models = {"a": entry(extraArgs=["--no-cache-prompt"]), "b": entry()}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    async with make_gateway(models, **settings) as running:
        folder = Path(running.gateway.settings.data_dir) / "cache"
        messages = [{"role": "user", "content": words(15, 40)}]
        for _ in range(4):
            text, _, cached = await ask(running, "a", messages)
            assert cached == 0
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "On."}]
            await ask(running, "b", [{"role": "user", "content": "Hi"}])
        _, answer = await running.json("GET", "/admin/models")
        (spared,) = [m["prompt_cache"] for m in answer["models"] if m["name"] == "a"]
        assert "3 times in a row" in spared["switched_off"]
        assert spared["hits"] == 0
        await running.json("DELETE", "/admin/cache?model=b")
        assert [*folder.glob("*.kv")] == []
