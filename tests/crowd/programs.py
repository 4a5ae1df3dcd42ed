"""Several real llama-servers on one machine with memory for two."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from gateway.backends.command import bundled_program
from gateway.backends.model_status import ModelStatus
from tests.harness import Running

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
