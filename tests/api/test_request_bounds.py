"""What one request may ask for, at a real llama-server: in every dialect, at both doors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.tasks import spawn
from tests.dialects import ROUTES, asked
from tests.harness import MakeGateway, Running, fake_model
from tests.tiny_model import GRAMMAR

LIMITS = {
    "last_n": 1000,
    "answers": 2,
    "logprobs": 3,
    "logit_bias": 4,
    "list_items": 4,
    "grammar_parts": 500,
}
#: Has no grammars, which the model needs to speak; needs a model that fills gaps.
UNFIT = ("/v1/messages", "/infill")
#: Fields at the limit, which llama-server takes, and over it.
FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"repeat_last_n": 1000, "repeat_penalty": 1.1}, {"repeat_last_n": 10**8}),
    ({"dry_penalty_last_n": 1000, "dry_multiplier": 0.8}, {"dry_penalty_last_n": 10**8}),
    ({"n_probs": 3}, {"n_probs": 4}),
    ({"logit_bias": [[i, 0.1] for i in range(4)]}, {"logit_bias": [[i, 0.1] for i in range(5)]}),
    ({"stop": list("wxyz")}, {"stop": list("vwxyz")}),
    ({"samplers": ["top_k"] * 4}, {"samplers": ["top_k"] * 5}),
    ({"dry_sequence_breakers": list("wxyz")}, {"dry_sequence_breakers": list("vwxyz")}),
    ({"grammar": 'root ::= "a" "b"? "c"?'}, {"grammar": "root ::= " + '("a"|"a")? ' * 400}),
    ({}, {"grammar": "root ::= " + "(" * 200_000}),
    ({}, {"grammar": "root ::= [a-z]{1000}"}),
    ({}, {"n_cmpl": 3}),
    ({}, {"ignore_eos": True}),
]
SCHEMA = {"type": "array", "items": {"type": "integer"}, "maxItems": 10**9}


@pytest.fixture
async def running(make_gateway: MakeGateway, tiny_model: Path) -> AsyncIterator[Running]:
    models = {"m": {"params": {"model": str(tiny_model), "threads": 1, "ctxSize": 1024}}}
    limits = {"request": LIMITS}
    async with make_gateway(models, llama_server="auto", limits=limits) as running:
        yield running


async def refused(running: Running, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The error of the 400 at both doors, streamed or not."""
    found = []
    for query in ("", "?x"):  # with a query it is aiohttp that serves it
        for stream in (False, True):
            sent = {"model": "m", **body, "stream": stream}
            status, answer = await running.json("POST", path + query, json=sent)
            assert status == 400, (path, answer)
            found.append(answer["error"])
    assert all(error == found[0] for error in found)
    return dict(found[0])


async def test_field_at_its_limit_is_taken_and_over_it_refused(
    running: Running, subtests: pytest.Subtests
) -> None:
    for path, fields in ROUTES.items():
        anthropic = path == "/v1/messages"
        for good, bad in FIELDS:
            with subtests.test(f"{good!r:.80}"):
                held = {"grammar": GRAMMAR, "max_tokens": 3, **good}
                if good and path not in UNFIT:
                    assert await asked(running, path, model="m", **held) > 0
                error = await refused(running, path, {**fields, **bad})
                (name,) = bad
                assert f"`{name}`" in error["message"]
                if not anthropic:  # whose errors have no such field
                    assert error["param"] == name
                    assert ("limits.request." in error["message"]) == (name != "ignore_eos")
    # And nothing of it has reached the model.
    assert {record.status for record in running.gateway.accounting.recent} <= {200}


async def test_schema_over_the_limit_is_refused(
    running: Running, subtests: pytest.Subtests
) -> None:
    tool = {"name": "f", "parameters": SCHEMA}
    for path, fields in ROUTES.items():
        for bad in (
            {"json_schema": SCHEMA},
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            {"text": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {"tools": [{"type": "function", "function": tool}]},
            {"tools": [{"type": "function", **tool}]},
            {"tools": [{"name": "f", "input_schema": SCHEMA}]},
        ):
            with subtests.test(f"{bad!r:.80}"):
                error = await refused(running, path, {**fields, **bad})
                assert "limits.request.grammar_parts" in error["message"]
    # What is answered beside running requests makes a grammar as well.
    for path in ("/apply-template", "/v1/chat/completions/input_tokens"):
        body = {**ROUTES["/v1/chat/completions"], "json_schema": SCHEMA}
        assert "grammar_parts" in (await refused(running, path, body))["message"]


async def test_max_tokens_of_a_key_bounds_its_answers(
    make_gateway: MakeGateway, tiny_model: Path, subtests: pytest.Subtests
) -> None:
    model = {"params": {"model": str(tiny_model), "threads": 1, "ctxSize": 1024}}
    models = {"m": {**model, "setParams": {"grammar": GRAMMAR}}}
    async with make_gateway(models, llama_server="auto") as running:
        made = {"name": "short", "limits": {"max_tokens": 4}}
        status, key = await running.json("POST", "/admin/keys", json=made)
        assert (status, key["limits"]) == (201, {"max_tokens": 4})
        admin, running.key = running.key, key["key"]
        for path, fields in ROUTES.items():
            if path in UNFIT:
                continue
            assert await asked(running, path, model="m") == 4
            for name in ("n_predict", "max_tokens", "max_completion_tokens", "max_output_tokens"):
                with subtests.test(f"{name!r:.80}"):
                    assert await asked(running, path, model="m", **{name: 4}) == 4
                    assert await asked(running, path, model="m", **{name: -1}) == 4
                    error = await refused(running, path, {**fields, name: 5})
                    assert error["param"] == name
                    assert "max_tokens of the key" in error["message"]
            assert await asked(running, path, model="m", max_tokens=2) == 2
            assert await asked(running, path, model="m", ignore_eos=True) == 4
        for query in ("", "&stream=true"):
            async with running.request("GET", f"/chat/ask?question=hi{query}") as answer:
                assert answer.status == 200
                await answer.read()
            assert running.gateway.accounting.recent[-1].usage.completion_tokens <= 4
        running.key = admin
        assert await asked(running, "/completion", model="m") > 4
        status, after = await running.json(
            "PATCH", f"/admin/keys/{key['id']}", json={"limits": {"max_tokens": None}}
        )
        assert (status, after["limits"]) == (200, None)


async def test_max_tokens_of_the_configuration_bounds_all_answers(
    make_gateway: MakeGateway, parrot_model: Path
) -> None:
    models = {"m": {"params": {"model": str(parrot_model), "threads": 1, "ctxSize": 512}}}
    limits = {"request": {"max_tokens": 2}}
    async with make_gateway(models, llama_server="auto", limits=limits) as running:
        for path in ROUTES:
            assert await asked(running, path, model="m") <= 2
        for name in ("max_tokens", "n_predict"):
            body = {**ROUTES["/v1/messages"], name: 3}
            error = await refused(running, "/v1/messages", body)
            assert "(limits.request.max_tokens)" in error["message"]


def form(*fields: tuple[str, str]) -> aiohttp.FormData:
    data = aiohttp.FormData(dict((("model", "m"), *fields)), default_to_multipart=True)
    data.add_field("file", b"RIFF" * 100, filename="a.wav")
    return data


async def test_texts_in_forms_are_bounded(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """What is a text to llama-server, whatever the form's file is."""
    record = tmp_path / "record"
    model = {**fake_model(tmp_path, record=record), "mmproj": str(tmp_path / "fake.gguf")}
    server = str(Path(__file__).parent.parent / "recording_llama_server.py")
    path = "/v1/audio/transcriptions"
    async with make_gateway({"m": model}, llama_server=server) as running:
        fields = (("response_format", "json"), ("prompt", "x"), ("temperature", "0"))
        status, _ = await running.json("POST", path, data=form(*fields, ("max_tokens", "9")))
        assert status == 200
        for name in ("grammar", "json_schema", "n", "stop", "logit_bias", "chat_parser"):
            with subtests.test(f"{name!r:.80}"):
                status, answer = await running.json("POST", path, data=form((name, "x")))
                assert (status, answer["error"]["param"]) == (400, name)
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create("short", limits={"max_tokens": 4})
        status, _ = await running.json("POST", path, data=form(*fields), key=key)
        assert status == 200
        last = json.loads(record.read_text().splitlines()[-1])
        assert 'name="max_tokens"\r\n\r\n4\r\n' in last["body"]
        assert int(last["headers"]["content-length"]) == len(last["body"])
        data = form(("max_tokens", "2"))
        status, answer = await running.json("POST", path, data=data, key=key)
        assert (status, answer["error"]["param"]) == (400, "max_tokens")


async def test_measuring_holds_nobody_up(running: Running) -> None:
    """What takes longest to be measured, several at once: others are answered meanwhile."""
    grammar = ("root ::= " + '("a" b [x] )* ' * 5000)[: 64 * 1024 - 10]
    body = {"model": "m", "prompt": "hi", "grammar": grammar}
    heavy = [
        spawn(running.json("POST", "/completion", json=body), name="measured") for _ in range(6)
    ]
    loop = asyncio.get_running_loop()
    slowest = 0.0
    while not all(task.done() for task in heavy):
        start = loop.time()
        async with running.request("GET", "/health") as answer:
            assert answer.status == 200
        slowest = max(slowest, loop.time() - start)
    for task in heavy:
        status, answer = await task
        assert status == 400, answer  # by the gateway or by llama-server: `b` is no rule
    assert slowest < 2  # measured: 0.04 s; on the loop it would be the sum of all
