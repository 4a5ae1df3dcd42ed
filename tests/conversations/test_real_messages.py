"""Conversations over ``/v1/messages``, where llama-server itself chooses among several slots."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.backends.slots import SlotSeen
from gateway.conversations.chosen import chosen_by
from gateway.proxy.sse import Usage
from tests.conversations.test_real_llama_server import ask, cache, entry, words
from tests.harness import MakeGateway, Running

Message = dict[str, str]


def said(seed: int, count: int = 60) -> list[Message]:
    return [{"role": "user", "content": f"{seed} " + words(seed, count)}]


async def turn(running: Running, history: list[Message], **more: Any) -> tuple[int, int]:
    """The tokens of a prompt over ``/v1/messages``, and how many of them were cached."""
    body = {"model": "a", "messages": history, "temperature": 0, "max_tokens": 8, **more}
    status, answer = await running.json("POST", "/v1/messages", json=body)
    assert status == 200, answer
    history += [
        {"role": "assistant", "content": answer["content"][0]["text"]},
        *said(len(history), 4),
    ]
    cached = answer["usage"]["cache_read_input_tokens"]
    return answer["usage"]["input_tokens"] + cached, cached


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_conversations_beside_each_other_go_on_where_they_were(
    make_gateway: MakeGateway,
) -> None:
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    models = {"a": entry(parallel=2, extraArgs=["--cache-ram", "0"]), "b": entry()}
    models["a"]["params"]["ctxSize"] = 2048
    async with make_gateway(models, **settings) as running:
        # Alike for so long that llama-server takes each for the other, if it has nothing better.
        alike = words(0, 60)
        histories = [[{"role": "user", "content": f"{alike} {word}"}] for word in ("cat", "dogs")]
        before = [0, 0]
        for step in range(6):
            for number, history in enumerate(histories):
                prompt, cached = await turn(running, history)
                assert cached >= before[number] - 8, (step, number)
                before[number] = prompt
            if step == 3:
                await ask(running, "b", said(1, 4))  # both are read back after that
        _, answer = await running.json("GET", "/admin/models")
        (spared,) = [m["prompt_cache"] for m in answer["models"] if m["name"] == "a"]
        assert spared["hits"] >= 2
        assert spared["switched_off"] is None


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_slot_that_llama_server_has_chosen_is_nobody_elses(
    make_gateway: MakeGateway,
) -> None:
    model = entry(parallel=2, extraArgs=["--cache-ram", "0"])
    model["params"]["ctxSize"] = 8192
    async with make_gateway({"a": model}, llama_server="auto", cache=cache()) as running:
        first = said(1, 90)
        text, prompt, _ = await ask(running, "a", first)
        other = [{"role": "user", "content": first[0]["content"] + " So."}]  # in the same slot
        body = {"model": "a", "messages": other, "max_tokens": 3500, "stream": True}
        async with running.request("POST", "/v1/messages", json=body) as answer:
            for _ in range(30):
                await answer.content.readline()
            history = [*first, {"role": "assistant", "content": text}, *said(2, 4)]
            async with asyncio.timeout(60):
                _, _, cached = await ask(running, "a", history)
            assert cached > prompt - 8, "it was saved, and read back into the other one"
            _, slots = await running.json("GET", "/slots?model=a")
            assert sum(slot["is_processing"] for slot in slots) == 1, "that goes on meanwhile"


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_what_other_keys_may_notice_since_no_slot_can_be_named_is_told(
    make_gateway: MakeGateway,
) -> None:
    model = entry(parallel=2)
    async with make_gateway({"a": model}, llama_server="auto", cache=cache()) as running:
        assert running.gateway.ring is not None
        _, guest = await running.gateway.ring.create("guest")

        async def told() -> str | None:
            _, answer = await running.json("GET", "/admin/models")
            why: str | None = answer["models"][0]["prompt_cache"]["not_private"]
            return why

        history = said(1, 30)
        for _ in range(3):
            await turn(running, history)
        assert await told() is None, "there is one key"
        await ask(running, "a", said(2, 30), key=guest)
        for _ in range(2):  # the first of them may have that removed
            await turn(running, history)
            await ask(running, "a", said(2, 30), key=guest)
        why = await told()
        assert why is not None
        assert "/v1/messages" in why


SEEN: list[tuple[list[tuple[bool, int | None, int | None]], set[int], int | None, int | None]] = [
    ([(False, 5, 107), (False, 7, 90)], {0, 1}, None, 0),
    ([(False, 5, 100), (False, 7, 108)], {0, 1}, None, 1),
    ([(False, 5, 107), (False, 7, 107)], {0, 1}, 0, 0),
    ([(False, 5, 107), (False, 7, 107)], {0}, 1, 0),
    ([(True, 5, 107), (False, 7, 40)], {0, 1}, 0, None),
    ([(False, None, None)], {0}, 0, None),
    ([(False, None, 107)], {0}, None, 0),
    ([], {0}, 0, None),
]


@pytest.mark.parametrize(("slots", "free", "likely", "expected"), SEEN)
def test_slot_is_known_by_the_tokens_in_it(
    slots: Sequence[tuple[bool, int | None, int | None]],
    free: set[int],
    likely: int | None,
    expected: int | None,
) -> None:
    seen = [SlotSeen(number, *slot) for number, slot in enumerate(slots)]
    assert chosen_by(Usage(100, 8, 90), seen, free, likely) == expected
