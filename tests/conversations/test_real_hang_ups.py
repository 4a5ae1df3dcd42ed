"""A llama-server goes on for a while after its client has gone: nobody else gets that slot."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from unittest.mock import ANY

import pytest

from gateway.tasks import cancel_and_wait, spawn
from tests.conversations.test_real_llama_server import ask, cache, entry, words
from tests.harness import MakeGateway, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_BEGAN = re.compile(r"id +(\d+) \| task (\d+) \| processing task")
#: Longer than any test takes.
ENDLESS: dict[str, Any] = {"max_tokens": 3500, "ignore_eos": True}
_ENDED = re.compile(r"id +(\d+) \| task (\d+) \| stop processing")


class Happened:
    """What llama-server's log says of its slots, in order: (slot, task, whether that began)."""

    def __init__(self, running: Running, model: str = "a") -> None:
        backend = running.gateway.scheduler.backend(model)
        assert backend is not None
        self._log = backend.log
        self._news = asyncio.Event()
        self._log.listen(self._news.set)

    @property
    def all(self) -> list[tuple[int, int, bool]]:
        found = []
        for line in self._log.tail(100_000):
            for pattern, began in ((_BEGAN, True), (_ENDED, False)):
                if match := pattern.search(line):
                    found.append((int(match[1]), int(match[2]), began))
        return found

    async def more_than(self, before: int) -> list[tuple[int, int, bool]]:
        """What has happened since it was so many, when that is something."""
        async with asyncio.timeout(60):
            while len(found := self.all) <= before:
                self._news.clear()
                await self._news.wait()
        return found[before:]


def said(seed: int, count: int = 60) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{seed} " + words(seed, count)}]


async def hung_up_on(running: Running, happened: Happened) -> tuple[int, int]:
    """The slot and the task of a long answer whose client has left in the middle."""
    before = len(happened.all)
    asking = spawn(ask(running, "a", said(2, 4), **ENDLESS), name="hangs up")
    slot, task, _ = (await happened.more_than(before))[0]
    await cancel_and_wait(asking)
    return slot, task


async def test_no_other_conversation_waits_for_what_was_given_up(
    make_gateway: MakeGateway,
) -> None:
    """Beside somebody's stream llama-server writes an answer that nobody waits for to its end."""
    model = entry(parallel=3)
    model["params"]["ctxSize"] = 3 * 4096
    async with make_gateway({"a": model}, llama_server="auto", cache=cache()) as running:
        text, prompt, _ = await ask(running, "a", said(1))
        happened = Happened(running)
        (kept, _, _), *_ = happened.all
        body = {"model": "a", "messages": said(5, 4), "stream": True, **ENDLESS}
        async with running.request("POST", "/v1/chat/completions", json=body) as answer:
            await answer.content.readline()
            left, task = await hung_up_on(running, happened)
            before = len(happened.all)
            await ask(running, "a", said(3))
            assert (kept, ANY, True) in happened.all[before:], "and not in the empty one"
        while (left, task, False) not in happened.all:
            await happened.more_than(len(happened.all))
        history = [*said(1), {"role": "assistant", "content": text}, *said(4, 4)]
        _, _, cached = await ask(running, "a", history)
        assert cached > prompt - 8, "what made way was saved before"


async def test_conversation_that_was_given_up_is_saved_by_a_swap_at_once(
    make_gateway: MakeGateway,
) -> None:
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    async with make_gateway({"a": entry(), "b": entry()}, **settings) as running:
        text, prompt, _ = await ask(running, "a", said(1))
        history = [*said(1), {"role": "assistant", "content": text}, *said(2, 10)]
        body = {"model": "a", "messages": history, "max_tokens": 400, "stream": True}
        async with running.request("POST", "/v1/chat/completions", json=body) as answer:
            for _ in range(8):
                await answer.content.readline()
        await ask(running, "b", said(3, 4))
        _, _, cached = await ask(running, "a", [*history, *said(4, 4)])
        assert cached > prompt + 10
