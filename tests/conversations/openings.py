"""Models, tools and questions for tests of what conversations begin with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from tests.conversations.test_real_llama_server import ask, words
from tests.harness import Running, wait_until
from tests.tiny_model import GRAMMAR, write_tiny_model

#: That of the personality of every :func:`entry`.
TEXT = "you are a pirate " + words(1, 30)

#: Tokens of a short question, and of what a template writes around it: each letter is one.
LITTLE = 72


def entry(folder: Path, name: str = "a", **more: Any) -> dict[str, Any]:
    """A tiny model with a personality."""
    file = folder / f"{name}.gguf"
    if not file.exists():
        write_tiny_model(file)
    params = {"model": str(file), "ctxSize": 8192, "threads": 1, "threadsBatch": 1}
    return {"params": params, "personalities": {"pirate": TEXT}, **more}


def tools(seed: int, count: int = 3) -> list[dict[str, Any]]:
    """So many tools, of more than a hundred tokens each."""
    return [
        {
            "type": "function",
            "function": {
                "name": f"tool_{seed}_{number}",
                "description": words(100 * seed + number, 20),
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
        for number in range(count)
    ]


def folder_of(running: Running) -> Path:
    return Path(running.gateway.settings.data_dir) / "cache"


def facts_in(folder: Path) -> list[dict[str, Any]]:
    """What is written down of the files with nothing but a beginning."""
    facts = [orjson.loads(file.read_bytes()) for file in folder.glob("*.json")]
    return [one for one in facts if len(one["links"]) // 32 <= one["shared"]]


async def until_saved(
    running: Running, count: int = 1, *, goes: Callable[[dict[str, Any]], bool] | None = None
) -> list[dict[str, Any]]:
    """Wait until there are so many files with nothing but a beginning, of those that ``goes``."""

    def found() -> list[dict[str, Any]]:
        return [one for one in facts_in(folder_of(running)) if goes is None or goes(one)]

    await asyncio.to_thread(wait_until, lambda: len(found()) >= count, 120, "it is saved")
    return found()


async def swap(running: Running) -> None:
    """Have the process of ``a`` ended, in favour of ``b``."""
    await ask(running, "b", [{"role": "user", "content": "hi"}], grammar=GRAMMAR)


async def computed(
    running: Running, question: str, *, key: str | None = None, **more: Any
) -> tuple[int, str]:
    """How many tokens of a first question to the pirate were computed, and the answer."""
    body = {
        "model": "a:pirate",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 20,
        "temperature": 0,
        "grammar": GRAMMAR,
        **more,
    }
    if "tools" in body:
        del body["grammar"]  # llama-server takes one or the other
        body["max_tokens"] = 1
    status, answer = await running.json(
        "POST", "/v1/chat/completions", json=body, key=key or running.key
    )
    assert status == 200, answer
    usage = answer["usage"]
    number = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
    return int(number), answer["choices"][0]["message"]["content"] or ""
