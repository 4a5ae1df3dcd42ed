"""Random conversations of several keys with two models: in few slots, and each in one of its own.

What llama-server answers from a slot that nothing else was ever in is what is right. More of them:
``LLM_GATEWAY_TEST_CONVERSATIONS=40 LLM_GATEWAY_TEST_SEED=3 pytest`` and this file.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conversations.test_real_llama_server import cache, entry, words
from tests.harness import MakeGateway, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

CONVERSATIONS = int(os.environ.get("LLM_GATEWAY_TEST_CONVERSATIONS", "3"))
SEED = int(os.environ.get("LLM_GATEWAY_TEST_SEED", "15"))
#: Tokens with which every prompt of the demo model's template begins.
TEMPLATE = 24
Message = dict[str, str]


@dataclass(frozen=True)
class Step:
    """``back``: turns that are taken back first. ``stops``: its client hangs up."""

    back: int
    says: str
    stops: bool


@dataclass
class Talk:
    """One conversation, with a model and of a key. ``slot``: of its own, where it has one."""

    number: int
    model: str
    owner: int
    steps: tuple[Step, ...]
    history: list[Message] = field(default_factory=list)
    answers: list[tuple[str, int]] = field(default_factory=list)

    def asked(self, step: Step) -> list[Message]:
        kept = self.history[: max(0, len(self.history) - 2 * step.back)]
        return [*kept, {"role": "user", "content": step.says}]


def talks(dice: random.Random) -> Iterator[Talk]:
    """Conversations that have only their template in common."""
    for number in range(CONVERSATIONS):
        first = f"{dice.randrange(10**6)} " + words(dice.randrange(10**6), 30)
        later = (
            Step(
                dice.choice((0, 0, 0, 1, 2)), words(dice.randrange(10**6), 6), dice.random() < 0.15
            )
            for _ in range(dice.randrange(2, 6))
        )
        steps = (Step(0, first, False), *later)
        yield Talk(number, dice.choice("ab"), dice.randrange(2), steps)


async def keys_of(running: Running) -> tuple[str, str]:
    ring = running.gateway.ring
    assert ring is not None
    _, guest = await ring.create("guest", "")
    return running.key, guest


async def take(running: Running, talk: Talk, step: Step, key: str, **more: Any) -> None:
    """Have the next turn of ``talk``."""
    messages = talk.asked(step)
    body = {"model": talk.model, "messages": messages, "temperature": 0, "max_tokens": 8, **more}
    if step.stops:
        body |= {"stream": True, "max_tokens": 200}
        async with running.request("POST", "/v1/chat/completions", json=body, key=key) as answer:
            await answer.content.readline()
        return
    status, answer = await running.json("POST", "/v1/chat/completions", json=body, key=key)
    assert status == 200, answer
    text = answer["choices"][0]["message"]["content"]
    cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    talk.answers.append((text, cached))
    talk.history = [*messages, {"role": "assistant", "content": text}]


@pytest.mark.parametrize("slots", [1, 2, 3])
async def test_answers_are_those_of_slots_that_were_never_emptied(
    make_gateway: MakeGateway, slots: int
) -> None:
    mixed, alone = ([*talks(random.Random(SEED + slots))] for _ in range(2))
    turns = [talk.number for talk in mixed for _ in talk.steps]
    random.Random(SEED).shuffle(turns)

    few = {name: sized(slots) for name in "ab"}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}}
    saved = cache(min_tokens=16)
    async with make_gateway(few, folder="mixed", cache=saved, **settings) as running:
        await played(running, mixed, turns)
        _, answer = await running.json("GET", "/admin/models")
        counts = [model["prompt_cache"] for model in answer["models"]]
    many = {name: sized(CONVERSATIONS) for name in "ab"}
    off: dict[str, Any] = {"cache": {"enabled": False}, "llama_server": "auto"}
    async with make_gateway(many, folder="alone", **off) as running:
        await played(running, alone, turns, like=mixed)

    compared = 0
    for one, other in zip(mixed, alone, strict=True):
        pairs = zip(one.answers, other.answers, strict=True)
        alike = [*itertools.takewhile(computed_alike, pairs)]
        assert [pair[0][0] for pair in alike] == [pair[1][0] for pair in alike]
        compared += len(alike)
    assert compared > sum(len(talk.answers) for talk in alone) // 3
    assert sum(count["hits"] for count in counts) > 0
    assert {count["switched_off"] for count in counts} == {None}


def computed_alike(pair: tuple[tuple[str, int], tuple[str, int]]) -> bool:
    """Whether both answers come from the same numbers, as far as those of all before them did.

    What is computed in other pieces isn't the same to the last bit, nor is what follows it. That is
    so of the template's beginning as well, which another prompt left in the slot: llama-server
    alone, with 24 tokens cached, gives each of 8 first words another logarithm if they were
    computed in a prompt of 65 tokens or more than in one of 60 or less, and 2 of 8 another word.
    """
    (_, one), (_, other) = pair
    return one == other and not 0 < one <= TEMPLATE


async def played(
    running: Running, all_: list[Talk], turns: list[int], *, like: list[Talk] | None = None
) -> None:
    """Play all turns; ``like`` those: each in a slot of its own, in which as much is computed.

    What is computed in other pieces is rounded otherwise: llama-server alone, asked the same with
    0, 24 and 104 tokens cached, gives the first word -2.18, -2.22 and -2.28 (logarithms), and so
    another word. A conversation that begins anew has the template's first words in common with
    what was in its slot, if anything was.
    """
    keys = await keys_of(running)
    steps = [iter(talk.steps) for talk in all_]
    for number in turns:
        talk, step, more = all_[number], next(steps[number]), {}
        if like is not None:
            more["id_slot"] = number
            if not step.stops:
                more["cache_prompt"] = like[number].answers[len(talk.answers)][1] > 0
        await take(running, talk, step, keys[talk.owner], **more)


def sized(slots: int) -> dict[str, Any]:
    model = entry(parallel=slots)
    model["params"]["ctxSize"] = 1024
    return model
