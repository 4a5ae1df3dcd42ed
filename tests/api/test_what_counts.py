"""Each request counts what it cost, in whatever shape its client wants the answer."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.access.request_log import Record
from gateway.proxy.prompt_size import split_size
from gateway.proxy.routes import TABLE, ModelIn
from gateway.proxy.sse import Usage
from tests.api.counted_rows import ROWS, STORY, USER
from tests.harness import FAKE, MakeGateway, Running, fake_model
from tests.parrot_model import TOOL

pytestmark = pytest.mark.slow


RECORDER = str(FAKE.with_name("recording_llama_server.py"))
#: Looks, and what only an administrator may change: they cost the model nothing.
FREE = {"/props", "/lora-adapters", "/slots", "/metrics", "/slots/{slot}"}
#: No small model hears: see below.
FORMS = {"/v1/audio/transcriptions"}


def test_every_route_has_its_rows() -> None:
    relayed = {route.target for route in TABLE if not route.refused}
    assert relayed == {row.target for row in ROWS} | FREE | FORMS
    assert {route.target for route in TABLE if route.model is ModelIn.FORM} == FORMS
    assert {route.target for route in TABLE if route.model is ModelIn.QUERY} == FREE


async def done(running: Running, model: str) -> tuple[int, int]:
    """Tokens that a model's llama-server has read and written."""
    async with running.request("GET", f"/metrics?model={model}") as response:
        said = await response.text()
    read, wrote = (
        re.search(rf"^llamacpp:{name}_total (\S+)$", said, re.MULTILINE)
        for name in ("prompt_tokens", "tokens_predicted")
    )
    assert read
    assert wrote
    return int(float(read[1])), int(float(wrote[1]))


async def counted(running: Running, added: int) -> Record:
    """The record of the request behind ``added`` others."""
    accounting = running.gateway.accounting
    async with asyncio.timeout(30):
        while accounting.log.added <= added or accounting.unsettled:
            await asyncio.sleep(0.005)
    assert accounting.log.added == added + 1
    return accounting.recent[-1]


def llama(file: Path, **more: Any) -> dict[str, Any]:
    params = {"model": str(file), "ctxSize": 8192, "threads": 1}
    return {"params": params, "extraArgs": ["--metrics"], **more}


@pytest.mark.parametrize("model", ["text", "one", "parrot", "embed", "rank"])
async def test_what_a_key_is_counted_is_what_was_done(
    make_gateway: MakeGateway,
    tiny_model: Path,
    parrot_model: Path,
    minilm_model: Path,
    model: str,
) -> None:
    models = {
        "text": llama(tiny_model, parallel=4),
        "one": llama(tiny_model, parallel=1),
        "parrot": llama(parrot_model, parallel=2),
        "embed": llama(minilm_model, embeddings=True),
        "rank": llama(minilm_model, reranking=True),
    }
    beside = {route.target for route in TABLE if route.unqueued}
    wrong: list[Any] = []
    async with make_gateway({model: models[model]}, llama_server="auto") as running:
        await running.json("POST", "/loadModel", json={"model": model})
        total = 0
        for row in [row for row in ROWS if row.model == model]:
            added = running.gateway.accounting.log.added
            before = await done(running, model)
            body = aiohttp.JsonPayload({"model": model, **row.fields})
            async with running.request("POST", row.target, data=body) as response:
                answer = await response.read()
            if response.status != row.status or len(answer) < row.least:
                wrong.append((row.target, row.fields, response.status, len(answer), answer[:500]))
            usage = (await counted(running, added)).usage
            after = await done(running, model)
            cost = (after[0] - before[0], after[1] - before[1])
            if row.target in beside:
                assert cost == (0, 0), row
                cost = (split_size(body.size or 0, len(answer)), 0)
            if (usage.prompt_tokens - usage.cached_tokens, usage.completion_tokens) != cost:
                wrong.append((row.target, row.fields, usage, cost))
            total += usage.prompt_tokens + usage.completion_tokens
        assert not wrong, "\n".join(map(str, wrong))
        _, used = await running.json("GET", "/admin/usage")
        assert total == sum(
            day["prompt_tokens"] + day["completion_tokens"] for day in used["usage"]
        )


async def test_other_ways_to_a_model_are_counted(
    make_gateway: MakeGateway, parrot_model: Path
) -> None:
    """Questions in the address, and what an administrator sends past the gateway."""
    past = "/upstream/parrot"
    chat: dict[str, Any] = {"messages": [USER], "cache_prompt": False}
    own: dict[str, Any] = {"prompt": STORY, "cache_prompt": False}
    fields = {"response_fields": ["content"]}
    ways: list[tuple[str, str, Any]] = [
        ("GET", "/chat/ask?question=hi", None),
        ("GET", "/chat/ask?question=hi&stream=true", None),
        ("POST", f"{past}/v1/chat/completions", chat),
        ("POST", f"{past}/v1/chat/completions", {**chat, "stream": True}),
        ("POST", f"{past}/completion", own),
        ("POST", f"{past}/completion", {**own, "prompt": ["a", "b"]}),
    ]
    async with make_gateway({"parrot": llama(parrot_model)}, llama_server="auto") as running:
        await running.json("POST", "/loadModel", json={"model": "parrot"})
        for way in ways:
            cost, usage = await spent(running, *way)
            assert (usage.prompt_tokens - usage.cached_tokens, usage.completion_tokens) == cost, way
        # What tells nothing, and is sent as it came, is counted here.
        for more in ({}, {"stream": True}):
            body = {**own, **fields, **more}
            cost, usage = await spent(running, "POST", f"{past}/completion", body)
            assert usage.prompt_tokens == cost[0]
            assert usage.completion_tokens >= cost[1] > 0
        split = {"content": STORY * 100}
        cost, usage = await spent(running, "POST", f"{past}/tokenize", split)
        assert cost == (0, 0)
        assert 30 < usage.prompt_tokens < 200


async def spent(
    running: Running, method: str, path: str, body: Any
) -> tuple[tuple[int, int], Usage]:
    """What llama-server did for a request, and what it was counted."""
    added = running.gateway.accounting.log.added
    before = await done(running, "parrot")
    async with running.request(method, path, json=body) as response:
        answer = await response.read()
        assert response.status == 200, answer
    usage = (await counted(running, added)).usage
    after = await done(running, "parrot")
    return (after[0] - before[0], after[1] - before[1]), usage


async def test_a_form_counts_its_bytes_where_nothing_tells(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """No small model hears; and an answer that is plain text tells nothing."""
    answers = {"/v1/audio/transcriptions": [200, "the words that were heard"]}
    model = fake_model(tmp_path, answers=json.dumps(answers))
    model["mmproj"] = model["params"]["model"]

    async def sound() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"\0" * 1024

    async with make_gateway({"m": model}, llama_server=RECORDER) as running:
        path = "/v1/audio/transcriptions"
        for data in (b"\0" * 102_400, sound()):
            added = running.gateway.accounting.log.added
            form = aiohttp.FormData()
            form.add_field("model", "m")
            form.add_field("file", data, filename="a.wav")
            async with running.request("POST", path, data=form) as response:
                assert response.status == 200, await response.text()
            usage = (await counted(running, added)).usage
            assert usage.prompt_tokens == 100
            assert usage.completion_tokens == 7  # four bytes of text each


#: Fields of an answer that are others each time, or in each slot.
OTHERS = ("timings", "id_slot", "tokens_cached", "seed")


def without_times(answer: Any) -> Any:
    if isinstance(answer, list):
        return [without_times(one) for one in answer]
    if isinstance(answer, dict):
        return {k: without_times(v) for k, v in answer.items() if k not in OTHERS}
    return answer


async def test_several_answers_are_given_as_llama_server_gives_them(
    make_gateway: MakeGateway, parrot_model: Path
) -> None:
    """They are had as a stream, and put together."""
    chat: dict[str, Any] = {"messages": [USER], "n": 2, "cache_prompt": False}
    asked = [
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", {**chat, "tools": [TOOL], "stream_options": {}}),
        ("/v1/chat/completions", {**chat, "chat_template_kwargs": {"think": True}}),
        ("/v1/chat/completions", {**chat, "max_tokens": 2, "logprobs": True, "top_logprobs": 2}),
        ("/v1/chat/completions", {**chat, "stop": ["river"], "stream": False}),
        ("/v1/completions", {"prompt": ["a", "b"], "cache_prompt": False}),
        ("/v1/completions", {"prompt": "a", "n": 2, "logprobs": 1, "cache_prompt": False}),
        ("/v1/completions", {"prompt": ["a", "b"], "n": 2, "max_tokens": 1}),
        ("/completion", {"prompt": ["a", "b"], "cache_prompt": False}),
        ("/completion", {"prompt": ["a", [1, 2]], "n_predict": 3, "n_probs": 2}),
        ("/completion", {"prompt": "a", "n_cmpl": 2, "response_fields": ["content", "stop"]}),
        ("/completion", {"prompt": ["a"], "stop": ["river"], "return_tokens": False}),
        ("/infill", {"input_prefix": "a", "input_suffix": "b", "n_cmpl": 2}),
    ]
    models = {"parrot": llama(parrot_model, parallel=2)}
    async with make_gateway(models, llama_server="auto") as running:
        await running.json("POST", "/loadModel", json={"model": "parrot"})
        for target, body in asked:
            body = {**body, "model": "parrot", "temperature": 0}
            async with running.request("POST", target, json=body) as response:
                assert response.status == 200, await response.text()
                assert response.content_type == "application/json"
                ours = await response.json()
            async with running.directly("parrot", target, body) as response:
                theirs = await response.json()
            if target not in ("/v1/chat/completions", "/v1/completions"):
                assert without_times(ours) == without_times(theirs), (target, body)
                continue
            if (texts := ours.pop("responses", None)) is not None:
                assert texts == theirs["choices"][0]["message"]["content"]
            assert list(ours) == list(theirs)
            for answer in (ours, theirs):
                assert isinstance(answer.pop("created"), int)
                assert answer.pop("id").startswith("chatcmpl-")
                timings, usage = answer.pop("timings"), answer["usage"]
                assert timings["predicted_n"] == usage["completion_tokens"]
                assert timings["cache_n"] == usage["prompt_tokens_details"].pop("cached_tokens")
                for choice in answer["choices"]:
                    for call in choice.get("message", {}).get("tool_calls", ()):
                        assert call.pop("id")
            assert ours == theirs, (target, body)


async def test_what_was_asked_for_besides_is_not_in_the_answer(
    make_gateway: MakeGateway, parrot_model: Path, subtests: pytest.Subtests
) -> None:
    body = {"model": "parrot", "prompt": "a", "temperature": 0, "response_fields": ["content"]}
    more: dict[str, Any]
    async with make_gateway({"parrot": llama(parrot_model)}, llama_server="auto") as running:
        await running.json("POST", "/loadModel", json={"model": "parrot"})
        for more in (
            {},
            {"stream": True},
            {"prompt": ["a", "b"]},
            {"response_fields": ["timings"]},
        ):
            with subtests.test(f"{more!r:.80}"):
                async with running.request(
                    "POST", "/completion", json={**body, **more}
                ) as response:
                    ours = await response.text()
                async with running.directly("parrot", "/completion", {**body, **more}) as response:
                    theirs = await response.text()
                ours, theirs = (re.sub(r"\d+\.\d+", "0.0", text) for text in (ours, theirs))
                assert ours == theirs
                assert ('"timings"' in ours) is (more.get("response_fields") == ["timings"])
