"""Several real llama-servers where there is memory for two."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.tasks import spawn
from tests.crowd.programs import (
    MEMORY,
    Program,
    answers,
    entries,
    pid_of,
    question,
    status,
    streaming,
)
from tests.harness import MakeGateway, alive
from tests.scripted import until
from tests.tiny_model import GRAMMAR

pytestmark = pytest.mark.slow


async def test_the_tiny_model_repeats_itself(
    make_gateway: MakeGateway, program: Program, tiny_model: Path
) -> None:
    async with make_gateway(
        entries(tiny_model, "a"), llama_server=str(program.path), scheduler=MEMORY
    ) as running:
        said = set()
        for _ in range(3):
            asked = question("a", 40, grammar=GRAMMAR, ignore_eos=False)
            code, body = await running.json("POST", "/v1/chat/completions", json=asked)
            assert code == 200, body
            said.add(body["choices"][0]["message"]["content"])
        assert len(said) == 1
        assert re.fullmatch("[a-z ]{20}", said.pop())


async def test_a_swap_waits_for_the_stream_and_for_the_old_process(
    make_gateway: MakeGateway, program: Program, tiny_model: Path
) -> None:
    async with make_gateway(
        entries(tiny_model, "a", "b", "c"), llama_server=str(program.path), scheduler=MEMORY
    ) as running:
        scheduler = running.gateway.scheduler
        await answers(running, "b")
        async with (
            streaming(running, "a", 1000) as first,
            streaming(running, "b", 1000) as second,
        ):
            old = {pid_of(running, "a"), pid_of(running, "b")}
            third = spawn(answers(running, "c"), name="a third model")
            await until(scheduler, lambda: status(running, "c").queued == 1)
            assert len(program.starts) == 2
            for stream in (first, second):
                events = await stream.rest()
                assert events[-1] == "[DONE]"
                assert events[-2]["choices"][0]["finish_reason"] == "length"
                assert len(events) > 800
            await third
        last = program.starts[-1]
        assert len(program.starts) == 3
        assert last.pid == pid_of(running, "c")
        assert len(last.beside) == 1  # of the two that there were
        assert set(last.beside) < old
        assert [pid for pid in old if alive(pid)] == last.beside
