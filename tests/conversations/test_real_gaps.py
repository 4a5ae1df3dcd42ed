"""Prompts that are no conversations: raw completions, and gaps that a real model fills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conversations.test_real_llama_server import ask, cache, entry, words
from tests.gap_model import write_gap_model
from tests.harness import MakeGateway, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TEXT = words(1, 300)
#: Tokens that all of that takes, at least.
TOKENS = 250


@pytest.fixture(scope="module")
def gap_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "gap.gguf"
    write_gap_model(file)
    return file


def prompt(path: str, text: str, end: str) -> dict[str, Any]:
    """A request whose prompt begins with :data:`TEXT` and goes on with ``text``; ``end`` is behind
    it.
    """
    if path == "/completion":
        return {"prompt": TEXT + text + end}
    if path == "/infill":
        return {"input_prefix": TEXT + text, "input_suffix": end}
    extra = [{"filename": "a.py", "text": TEXT}]
    return {"input_extra": extra, "input_prefix": text, "input_suffix": end}


async def fill(
    running: Running, path: str, text: str, end: str, *, key: str | None = None
) -> tuple[str, int]:
    """What was written, and how many tokens were cached."""
    more = {"model": "a", "n_predict": 8, "temperature": 0, "ignore_eos": True}
    status, answer = await running.json(
        "POST",
        path.partition("?")[0],
        json=more | prompt(path, text, end),
        key=key or running.key,
    )
    assert status == 200, answer
    return answer["content"], answer["timings"]["cache_n"]


async def swap(running: Running) -> None:
    status, answer = await running.chat("b", max_tokens=1)
    assert status == 200, answer


@pytest.mark.parametrize("path", ["/completion", "/infill", "/infill?extra"])
async def test_prompt_goes_on_from_its_beginning_after_a_swap(
    make_gateway: MakeGateway, gap_model: Path, path: str
) -> None:
    a = entry()
    a["params"] |= {"model": str(gap_model), "ctxSize": 8192}
    models = {"a": a, "b": entry()}
    settings: dict[str, Any] = {"llama_server": "auto", "scheduler": {"max_loaded": 1}}
    shorter, longer = (words(2, count) for count in (10, 40))
    async with make_gateway(models, folder="warm", **settings) as running:
        first, _ = await fill(running, path, shorter, " on")
        then, warm = await fill(running, path, longer, " at")
        assert warm > TOKENS, "llama-server's own cache goes on with it"

    async with make_gateway(models, folder="saved", cache=cache(), **settings) as running:
        ring = running.gateway.ring
        assert ring is not None
        _, guest = await ring.create("guest", "")
        assert (await fill(running, path, shorter, " on"))[0] == first
        await swap(running)
        assert await fill(running, path, longer, " at") == (then, warm), "as if nobody had swapped"
        (report,) = (await running.json("GET", "/admin/cache"))[1]["models"]
        assert (report["model"], report["hits"]) == ("a", 1)
        for found in (range(8), range(TOKENS, 2 * TOKENS)):
            _, cached = await fill(running, path, longer, " at", key=guest)
            assert cached in found, "nothing of another key's, in the slot or on disk"
            await swap(running)
        (report,) = (await running.json("GET", "/admin/cache"))[1]["models"]
        assert (report["hits"], report["switched_off"]) == (2, None)


async def test_gap_in_a_long_text_ends_no_saving_of_conversations(
    make_gateway: MakeGateway, gap_model: Path
) -> None:
    """llama-server reads the last 192 tokens before a gap, with that batch: others each time."""
    a = entry()
    a["params"] |= {"model": str(gap_model), "batchSize": 256}
    models = {"a": a, "b": entry()}
    settings: dict[str, Any] = {"llama_server": "auto", "scheduler": {"max_loaded": 1}}
    said = [{"role": "user", "content": words(3, 60)}]
    async with make_gateway(models, cache=cache(), **settings) as running:
        for turn in range(6):
            _, cached = await fill(running, "/infill", " cat" * turn, " on")
            assert cached < 10, "what is read begins elsewhere"
            await swap(running)
        _, prompt, _ = await ask(running, "a", said)
        await swap(running)
        _, _, cached = await ask(running, "a", said)
        assert cached > prompt - 4
        (report,) = (await running.json("GET", "/admin/cache"))[1]["models"]
        assert report["switched_off"] is None
