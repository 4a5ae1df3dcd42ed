"""Several real llama-servers on one machine with memory for two: they come, go, die and hang.

The model is the tiny one, under several names; the program is the bundled llama-server behind a
shell script that notes each start, and which earlier ones had not gone by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import re
import shlex
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from gateway.backends.backend import Backend, State
from gateway.backends.command import bundled_program
from gateway.backends.model_status import ModelStatus
from gateway.backends.scheduler import Scheduler
from gateway.backends.watchdog import Patience
from gateway.tasks import spawn
from tests.harness import MakeGateway, Running, alive
from tests.scripted import gone, says, until
from tests.tiny_model import GRAMMAR

pytestmark = pytest.mark.slow

MEMORY = {"memory_budget": "200MiB"}  # of which each model takes 90
SENTENCE = re.compile("[a-z ]+")


class Start(NamedTuple):
    """One start of a llama-server: its process, and earlier ones that still ran."""

    pid: int
    beside: list[int]


class Program:
    """The bundled llama-server, and what is known about its starts."""

    def __init__(self, folder: Path) -> None:
        self._notes = folder / "starts"
        self._notes.touch()
        self.path = folder / "llama-server"
        notes, program = shlex.quote(str(self._notes)), shlex.join(bundled_program())
        # A process that has ended and isn't reaped counts as running too: kill -0 finds it.
        self.path.write_text(
            f"""#!/bin/sh
            case "$*" in *--list-devices*) exit 1;; esac
            beside=""
            while read -r pid rest; do kill -0 $pid && beside="$beside $pid"; done < {notes}
            echo "$$ $beside" >> {notes}
            echo "the script starts" >&2
            exec {program} "$@"
            """
        )
        self.path.chmod(0o700)

    @property
    def starts(self) -> list[Start]:
        lines = [[int(pid) for pid in line.split()] for line in self._notes.read_text().split("\n")]
        return [Start(line[0], line[1:]) for line in lines if line]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def entries(tiny_model: Path, *names: str, **options: Any) -> dict[str, Any]:
    entry = {
        "params": {"model": str(tiny_model), "ctxSize": 16384, "threads": 1},
        "memory": "90MiB",
        **options,
    }
    return dict.fromkeys(names, entry)


def question(model: str, words: int = 20, **fields: Any) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
        "max_tokens": words,
        "grammar": "root ::= [a-z ]+",
        "ignore_eos": True,
        **fields,
    }


async def answer(running: Running, model: str, words: int = 20) -> tuple[int, Any]:
    return await running.json("POST", "/v1/chat/completions", json=question(model, words))


async def answers(running: Running, model: str) -> None:
    status, body = await answer(running, model)
    assert status == 200, body
    assert SENTENCE.fullmatch(body["choices"][0]["message"]["content"])


def status(running: Running, model: str) -> ModelStatus:
    return next(s for s in running.gateway.scheduler.status() if s.name == model)


def pid_of(running: Running, model: str) -> int:
    pid = status(running, model).pid
    assert pid is not None
    return pid


def backend(running: Running, model: str) -> Backend:
    found = running.gateway.scheduler.backend(model)
    assert found is not None
    return found


class Stream:
    """A streamed answer as it comes."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.status = response.status
        self.events: list[Any] = []

    async def next(self) -> Any:
        """The next event, parsed; None at the clean end, an exception where there is none."""
        while line := await self.response.content.readline():
            if line.startswith(b"data: "):
                data = line[6:].strip()
                self.events.append(data.decode() if data == b"[DONE]" else json.loads(data))
                return self.events[-1]
        return None

    async def rest(self) -> list[Any]:
        while await self.next() is not None:
            pass
        return self.events


@contextlib.asynccontextmanager
async def streaming(running: Running, model: str, words: int) -> AsyncIterator[Stream]:
    """A stream that has begun."""
    body = question(model, words, stream=True)
    async with running.request("POST", "/v1/chat/completions", json=body) as response:
        stream = Stream(response)
        assert await stream.next()
        yield stream


async def died(running: Running, model: str, deaths: int = 1) -> None:
    scheduler = running.gateway.scheduler
    await until(scheduler, lambda: status(running, model).deaths == deaths, seconds=20)


# --- room for two --------------------------------------------------------------------------


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


# --- children that are killed --------------------------------------------------------------


async def test_killed_while_idle(
    make_gateway: MakeGateway, program: Program, tiny_model: Path
) -> None:
    async with make_gateway(
        entries(tiny_model, "a"), llama_server=str(program.path), scheduler=MEMORY
    ) as running:
        await answers(running, "a")
        os.kill(pid_of(running, "a"), signal.SIGKILL)
        await died(running, "a")
        await answers(running, "a")
        # And once more without anybody noticing before the next request does.
        os.kill(pid_of(running, "a"), signal.SIGKILL)
        await answers(running, "a")
        assert status(running, "a").deaths == 2
        assert [start.beside for start in program.starts] == [[], [], []]


async def test_killed_while_loading(
    make_gateway: MakeGateway, program: Program, tiny_model: Path
) -> None:
    """It may have been the system, for want of memory: once more with the others out of it."""
    async with make_gateway(
        entries(tiny_model, "a", "b"), llama_server=str(program.path), scheduler=MEMORY
    ) as running:
        asked = spawn(answer(running, "a"), name="a request")
        await says(backend(running, "a"), "the script starts")
        os.kill(program.starts[-1].pid, signal.SIGKILL)
        code, body = await asked
        assert code == 500
        assert "was killed (SIGKILL)" in body["error"]["message"]
        await answers(running, "a")
        asked = spawn(answer(running, "b"), name="a request")
        await says(backend(running, "b"), "the script starts")
        os.kill(program.starts[-1].pid, signal.SIGKILL)
        code, body = await asked
        assert code == 200, body
        assert status(running, "a").state is State.STOPPED
        assert [len(start.beside) for start in program.starts] == [0, 0, 1, 0]


async def test_killed_before_the_first_byte(
    make_gateway: MakeGateway, program: Program, tiny_model: Path
) -> None:
    async with make_gateway(
        entries(tiny_model, "a"), llama_server=str(program.path), scheduler=MEMORY
    ) as running:
        await answers(running, "a")
        for stream in (True, False):
            pid = pid_of(running, "a")
            os.kill(pid, signal.SIGSTOP)  # so that it has the request and answers nothing
            body = question("a", stream=stream)
            asked = spawn(_text(running, body), name="a request")
            sent = backend(running, "a").pool
            async with asyncio.timeout(10):
                while not sent.exchanges:
                    await asyncio.sleep(0.01)  # nothing tells
            os.kill(pid, signal.SIGKILL)
            code, text = await asked
            assert code == 200, text
            assert text.rstrip().endswith("data: [DONE]" if stream else "}")
        assert status(running, "a").deaths == 2


async def _text(running: Running, body: Any) -> tuple[int, str]:
    async with running.request("POST", "/v1/chat/completions", json=body) as response:
        return response.status, await response.text()


async def test_killed_while_streaming(
    make_gateway: MakeGateway, program: Program, tiny_model: Path
) -> None:
    async with make_gateway(
        entries(tiny_model, "a"), llama_server=str(program.path), scheduler=MEMORY
    ) as running:
        async with streaming(running, "a", 10_000) as stream:
            os.kill(pid_of(running, "a"), signal.SIGKILL)
            with pytest.raises(aiohttp.ClientPayloadError):  # never a clean end
                await stream.rest()
            assert stream.events[-1]["error"]["code"]
            assert "[DONE]" not in stream.events
        await answers(running, "a")


# --- children that hang --------------------------------------------------------------------


async def test_a_stopped_one_is_replaced(
    make_gateway: MakeGateway, program: Program, tiny_model: Path
) -> None:
    async with make_gateway(
        entries(tiny_model, "a"),
        llama_server=str(program.path),
        scheduler=MEMORY,
        patience=Patience(interval=0.3, deaf_after=1.5, stuck_after=30),
    ) as running:
        await answers(running, "a")
        pid = pid_of(running, "a")
        os.kill(pid, signal.SIGSTOP)
        await answers(running, "a")  # it waits for as long as it takes, and knows nothing of it
        assert await gone(pid)
        assert "has not answered /health" in (status(running, "a").last_error or "")
        assert status(running, "a").deaths == 1


async def test_one_that_never_becomes_healthy(
    make_gateway: MakeGateway, tmp_path: Path, tiny_model: Path
) -> None:
    sleeper = tmp_path / "llama-server"
    sleeper.write_text('#!/bin/sh\ncase "$*" in *--list*) exit 1;; esac\nexec sleep 600\n')
    sleeper.chmod(0o700)
    async with make_gateway(
        entries(tiny_model, "a"),
        llama_server=str(sleeper),
        scheduler=MEMORY,
        limits={"load_timeout": "1s"},
    ) as running:
        began = time.monotonic()
        code, body = await answer(running, "a")
        assert 1 < time.monotonic() - began < 15
        assert code == 500
        assert body["error"]["code"] == "model_load_failed"
        assert "made no progress for 1 s while loading" in body["error"]["message"]
        assert status(running, "a").pid is None


async def test_a_model_file_that_goes_and_comes_back(
    make_gateway: MakeGateway, program: Program, tiny_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "disk/model.gguf"
    file.parent.mkdir()
    file.write_bytes(tiny_model.read_bytes())
    async with make_gateway(
        entries(file, "a"), llama_server=str(program.path), scheduler=MEMORY
    ) as running:
        await answers(running, "a")
        file.rename(tmp_path / "away.gguf")
        file.parent.rmdir()
        await answers(running, "a")  # the one that is loaded goes on
        await running.gateway.scheduler.unload("a")
        for _ in range(5):  # no death: it does not count as failing
            code, body = await answer(running, "a")
            assert (code, body["error"]["code"]) == (500, "model_file_not_found")
            assert str(file) in body["error"]["message"]
        file.parent.mkdir()
        (tmp_path / "away.gguf").rename(file)
        await answers(running, "a")
        assert status(running, "a").deaths == 0


# --- a crowd -------------------------------------------------------------------------------


class Crowd:
    """Clients that ask one thing after the other, and often hang up in the middle of it."""

    def __init__(self, running: Running, models: str, seconds: float) -> None:
        self._running = running
        self._models = models
        self._until = time.monotonic() + seconds
        self._dice = random.Random(4)
        self.served: Counter[str] = Counter()
        self.refused = 0
        self.hung_up = 0
        self.broken = 0
        self.errors: list[str] = []

    async def client(self) -> None:
        dice = self._dice
        while time.monotonic() < self._until:
            model = dice.choice(self._models)
            patience = dice.choice([0.005, 0.05, 0.3, 2.0, 30.0, 30.0])
            body = question(model, dice.choice([1, 20, 300]), stream=dice.random() < 0.7)
            try:
                async with asyncio.timeout(patience):
                    await self._ask(model, body)
            except TimeoutError:
                self.hung_up += 1
            except aiohttp.ClientPayloadError:  # a stream without a clean end
                self.broken += 1
            except aiohttp.ClientError as error:
                self.errors.append(repr(error))

    async def _ask(self, model: str, body: Any) -> None:
        async with self._running.request("POST", "/v1/chat/completions", json=body) as response:
            text = await response.text()
            if response.status == 503 and "Retry-After" in response.headers:
                self.refused += 1
                await asyncio.sleep(0.2)
            elif response.status != 200 or not _complete(text, stream=body["stream"]):
                self.errors.append(f"{response.status} {text[-500:]}")
            else:
                self.served[model] += 1


def _complete(text: str, *, stream: bool) -> bool:
    if stream:
        return text.endswith("data: [DONE]\n\n") and '"finish_reason":"length"' in text
    return json.loads(text)["choices"][0]["finish_reason"] == "length"


async def hurried(running: Running) -> Scheduler:
    """A scheduler that lets models take turns more often than is good for them."""
    scheduler = running.gateway.scheduler
    await until(scheduler, lambda: scheduler.limits.budget is not None)
    scheduler.limits = replace(scheduler.limits, patience=0.5, shares=0.5, shortest_turn=0.5)
    return scheduler


async def test_a_crowd(
    make_gateway: MakeGateway,
    program: Program,
    tiny_model: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """50 clients, 3 models, memory for 2, for a minute: no error but "come back later"."""
    async with make_gateway(
        entries(tiny_model, "a", "b", "c", parallel=2),
        llama_server=str(program.path),
        scheduler=MEMORY,
        limits={"queue_size": 18},
    ) as running:
        scheduler = await hurried(running)
        crowd = Crowd(running, "abc", 60)
        await asyncio.gather(*(crowd.client() for _ in range(50)))
        assert crowd.errors == []
        assert not crowd.broken
        assert all(crowd.served[model] > 10 for model in "abc"), crowd.served
        assert crowd.refused
        assert crowd.hung_up > 30
        async with asyncio.timeout(10):
            await scheduler.idle()  # what the last ones left behind may take a moment
        assert all(s.in_flight == s.queued == s.deaths == 0 for s in scheduler.status())
        assert len(program.starts) > 3  # they took turns
        assert max(len(start.beside) for start in program.starts) == 1
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not loud  # that clients hang up is nothing to write about
    assert not [start for start in program.starts if alive(start.pid)]


async def test_a_crowd_and_a_killer(
    make_gateway: MakeGateway,
    program: Program,
    tiny_model: Path,
) -> None:
    """Only streams that had begun are lost with a process, and they say so."""
    async with make_gateway(
        entries(tiny_model, "a", "b", "c", parallel=2),
        llama_server=str(program.path),
        scheduler=MEMORY,
    ) as running:
        scheduler = await hurried(running)
        crowd = Crowd(running, "abc", 8)

        async def kill(model: str) -> None:
            await until(scheduler, lambda: status(running, model).in_flight == 2, seconds=20)
            os.kill(pid_of(running, model), signal.SIGKILL)

        await asyncio.gather(*map(kill, "abc"), *(crowd.client() for _ in range(10)))
        assert crowd.errors == []
        assert crowd.broken <= 3 * 2  # what ran in those moments
        assert all(crowd.served[model] for model in "abc"), crowd.served
        async with asyncio.timeout(10):
            await scheduler.idle()
        assert all(s.in_flight == s.queued == 0 and s.deaths == 1 for s in scheduler.status())
        assert max(len(start.beside) for start in program.starts) == 1
        for model in "abc":
            await answers(running, model)
