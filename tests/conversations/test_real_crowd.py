"""People, strays and hang-ups at once on a real llama-server: conversations aren't lost.

Other ones than usual: ``LLM_GATEWAY_TEST_SEED=3 pytest`` and this file.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import pytest

from gateway.tasks import cancel_and_wait, spawn
from tests.conversations.test_real_llama_server import ask, cache, entry, words
from tests.harness import MakeGateway, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


SEED = int(os.environ.get("LLM_GATEWAY_TEST_SEED", "1"))
PEOPLE = 6
TURNS = 5
STRAYS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "n": 2}),
    ("/v1/completions", {"prompt": [words(90, 30), words(91, 30)]}),
    ("/v1/completions", {"prompt": words(92, 30), "id_slot": 1}),
    ("/upstream/a/completion", {"prompt": words(93, 30)}),
    ("/v1/messages", {"messages": [{"role": "user", "content": words(94, 30)}]}),
]


def said(seed: int, count: int) -> dict[str, str]:
    return {"role": "user", "content": f"{seed} " + words(seed, count)}


class Crowd:
    """Everybody, and what they had to wait for that should have been known."""

    def __init__(self, running: Running, seed: int, *, hang_ups: bool) -> None:
        self.running, self.seed, self.hang_ups = running, seed, hang_ups
        self.lost: list[tuple[int, int, int, int]] = []
        self.over = False

    async def person(self, number: int) -> None:
        """A conversation, turn after turn."""
        chosen = random.Random(self.seed * 100 + number)
        history, before = [said(1000 * self.seed + number, 60)], 0
        for turn in range(TURNS):
            if turn and self.hang_ups and chosen.random() < 0.3:
                await self.hang_up([*history, said(7, 5)], chosen.random() * 0.3)
            text, prompt, cached = await ask(self.running, "a", history)
            if cached < before - 20:
                self.lost.append((number, turn, before, cached))
            before = prompt
            history += [{"role": "assistant", "content": text}, said(10 * number + turn, 5)]
            await asyncio.sleep(chosen.random() * 0.2)

    async def hang_up(self, history: list[dict[str, str]], after: float) -> None:
        """Begin to ask, and go after so many seconds."""
        asking = spawn(ask(self.running, "a", history, max_tokens=100), name="hangs up")
        await asyncio.wait([asking], timeout=after)
        await cancel_and_wait(asking)

    async def strays(self) -> None:
        """What llama-server places itself, as long as there is anybody."""
        chosen = random.Random(self.seed)
        while not self.over:
            path, body = chosen.choice(STRAYS)
            sent = {"model": "a", "max_tokens": 4, **body}
            status, answer = await self.running.json("POST", path, json=sent)
            assert status == 200, answer
            await asyncio.sleep(chosen.random() * 0.5)


@pytest.mark.parametrize("between", ["hang-ups", "strays"])
async def test_whatever_comes_between_everybody_goes_on_where_they_were(
    make_gateway: MakeGateway, between: str
) -> None:
    model = entry(parallel=3, extraArgs=["--cache-ram", "0"])
    model["params"]["ctxSize"] = 3 * 1024
    async with make_gateway({"a": model}, llama_server="auto", cache=cache()) as running:
        crowd = Crowd(running, SEED, hang_ups=between == "hang-ups")
        strays = spawn(crowd.strays(), name="strays") if between == "strays" else None
        await asyncio.gather(*(crowd.person(number) for number in range(PEOPLE)))
        crowd.over = True
        if strays is not None:
            await strays
        status = running.gateway.scheduler.status()[0]
        assert (status.in_flight, status.queued) == (0, 0)
    # On a slow disk one that is sooner computed than written may be let go; most were, without it.
    assert len(crowd.lost) <= PEOPLE * (TURNS - 1) // 8, crowd.lost
