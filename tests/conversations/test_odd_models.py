"""Models whose memory can't go back to any token: never a wrong answer, saved or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conversations.openings import LITTLE, TEXT, computed, swap, tools, until_saved
from tests.conversations.test_real_llama_server import ask, cache, words
from tests.conversations.tool_templates import TEMPLATES
from tests.harness import MakeGateway, Running
from tests.odd_models import GRAMMAR, write_gemma2, write_mamba
from tests.tiny_model import write_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KINDS: dict[str, Callable[[Path], None]] = {
    "llama": write_tiny_model,
    "windows": write_gemma2,
    "recurrent": write_mamba,
}


async def played(running: Running, *, swaps: bool) -> list[tuple[str, int, int]]:
    """Answers of a conversation that goes on, and is edited: each text, prompt and cached."""
    answers = []
    messages = [{"role": "user", "content": words(1, 400)}]  # long enough to be worth saving
    for turn in range(5):
        answer = await ask(running, "a", messages, grammar=GRAMMAR, max_tokens=20)
        answers.append(answer)
        if swaps:
            await ask(running, "b", [{"role": "user", "content": "Hi"}], grammar=GRAMMAR)
        if turn == 3:
            messages = messages[:-2]  # as if its last question were edited
        else:
            messages = [*messages, {"role": "assistant", "content": answer[0]}]
        messages = [*messages, {"role": "user", "content": words(turn, 6)}]
    return answers


@pytest.mark.parametrize("kind", KINDS)
async def test_answers_are_those_of_a_slot_that_was_never_emptied(
    make_gateway: MakeGateway, tmp_path: Path, kind: str
) -> None:
    KINDS[kind](tmp_path / "a.gguf")
    write_tiny_model(tmp_path / "b.gguf")
    models = {name: model(tmp_path / f"{name}.gguf") for name in "ab"}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    async with make_gateway(models, folder="swaps", **settings) as running:
        swapped = await played(running, swaps=True)
        _, answer = await running.json("GET", "/admin/models")
        (spared,) = [m["prompt_cache"] for m in answer["models"] if m["name"] == "a"]
    off: dict[str, Any] = {"cache": {"enabled": False}}
    async with make_gateway(models, folder="warm", llama_server="auto", **off) as running:
        warm = await played(running, swaps=False)
    assert [text for text, _, _ in swapped] == [text for text, _, _ in warm]
    assert spared["switched_off"] is None
    assert spared["hits"] > 0


@pytest.mark.parametrize("with_tools", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_first_question_is_answered_as_where_its_beginning_was_never_read_back(
    make_gateway: MakeGateway, tmp_path: Path, kind: str, with_tools: bool
) -> None:
    """That beginning is computed ahead, and once still in its slot, once read back."""
    KINDS[kind](tmp_path / "a.gguf")
    write_tiny_model(tmp_path / "b.gguf")
    models = {name: model(tmp_path / f"{name}.gguf") for name in "ab"}
    pirate = {"prompt": TEXT, **({"tools": tools(1)} if with_tools else {})}
    models["a"] |= {
        "personalities": {"pirate": pirate},
        "extraArgs": ["--chat-template", TEMPLATES["behind"]],
    }
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    # llama-server takes a grammar or tools; what a random model says freely may be no text.
    asked: dict[str, Any] = {"grammar": None, "max_tokens": 1} if with_tools else {}
    async with make_gateway(models, **settings) as running:
        ring = running.gateway.ring
        assert ring is not None
        keys = [(await ring.create(name, ""))[1] for name in ("one", "two", "three")]
        await computed(running, "where", key=keys[0], **asked)
        await until_saved(running)
        live = await computed(running, "who are you", key=keys[1], **asked)
        await swap(running)
        read_back = await computed(running, "who are you", key=keys[2], **asked)
        _, answer = await running.json("GET", "/admin/models")
        (spared,) = [m["prompt_cache"] for m in answer["models"] if m["name"] == "a"]
    assert read_back[1] == live[1]
    assert max(read_back[0], live[0]) < LITTLE
    assert (spared["switched_off"], spared["hits"]) == (None, 1)


@pytest.mark.parametrize(
    "more",
    [
        {"cache_prompt": False},
        {"lora": [{"id": 0, "scale": 0.5}]},
        {"n_cache_reuse": 64, "seed": 4, "temperature": 1.5},
    ],
)
async def test_requests_that_go_on_with_little_switch_nothing_off(
    make_gateway: MakeGateway, tmp_path: Path, more: dict[str, Any]
) -> None:
    assert await reasons_after(make_gateway, tmp_path, more) == {None}


#: The first as templates are that leave out thoughts, the second as those that begin with the time.
FORGETFUL = {
    "thoughts": "{% for m in messages %}{{ m['content'] if m['role'] == 'user' }}{% endfor %}",
    "times": "Of {{ messages|length }}: {% for m in messages %}{{ m['content'] }}{% endfor %}",
}


@pytest.mark.parametrize(("template", "switched_off"), [("thoughts", False), ("times", True)])
async def test_model_is_switched_off_where_reading_back_takes_longer_than_it_spares(
    make_gateway: MakeGateway, tmp_path: Path, template: str, switched_off: bool
) -> None:
    found = await reasons_after(make_gateway, tmp_path, {}, FORGETFUL[template])
    reasons = [reason for reason in found if reason is not None]
    assert bool(reasons) is switched_off
    assert all("that took" in each and "3 times in a row" in each for each in reasons)


async def reasons_after(
    make_gateway: MakeGateway, folder: Path, more: dict[str, Any], template: str | None = None
) -> set[str | None]:
    """Why models were switched off, after a conversation that was read back again and again."""
    for name in "ab":
        write_tiny_model(folder / f"{name}.gguf")
    models = {name: model(folder / f"{name}.gguf") for name in "ab"}
    if template is not None:
        models["a"]["extraArgs"] = ["--chat-template", template]
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    async with make_gateway(models, **settings) as running:
        messages = [{"role": "user", "content": words(1, 60)}]
        for turn in range(5):
            asked = {"grammar": GRAMMAR, "max_tokens": 20}
            text, _, _ = await ask(running, "a", messages, **asked)
            await ask(running, "a", messages, **asked, **more)
            await ask(running, "b", [{"role": "user", "content": "Hi"}], **asked)
            said = [{"role": "assistant", "content": text}, {"role": "user", "content": str(turn)}]
            messages = [*messages, *said]
            if more:
                await ask(running, "a", messages, **asked, **more)  # the first after a restore
                await ask(running, "b", [{"role": "user", "content": "Hi"}], **asked)
        _, answer = await running.json("GET", "/admin/models")
    return {(model["prompt_cache"] or {}).get("switched_off") for model in answer["models"]}


def model(file: Path) -> dict[str, Any]:
    params = {"model": str(file), "ctxSize": 8192, "threads": 1, "threadsBatch": 1}
    return {"params": params}
