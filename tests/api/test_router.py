"""llama-server's router API and the list of models, as its web UI and OpenAI's clients see them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from yarl import URL

from tests.harness import FAKE, MakeGateway, Running, fake_model
from tests.scripted import until

RECORDER = str(FAKE.with_name("recording_llama_server.py"))


def model(tmp_path: Path, **more: Any) -> dict[str, Any]:
    made = fake_model(tmp_path, personalities={"pirate": "Arr."})
    return {**made, **more}


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    tuned = model(tmp_path, aliases=["org/alias"], description="Small.")
    tuned["params"]["ctxSize"] = 4096
    embed = model(tmp_path, embeddings=True)
    embed["personalities"] = {}
    lost = {"params": {"model": "nowhere.gguf"}}
    models = {"b": tuned, "a/x": embed, "lost": lost}
    async with make_gateway(models, llama_server=RECORDER) as running:
        yield running


async def listed(running: Running, **options: Any) -> dict[str, dict[str, Any]]:
    status, answer = await running.json("GET", "/v1/models", **options)
    assert status == 200
    assert answer["object"] == "list"
    return {entry["id"]: entry for entry in answer["data"]}


async def test_the_router_lists_each_model_with_its_state(running: Running) -> None:
    models = await listed(running)
    assert list(models) == ["a/x", "b", "b:pirate", "lost"]
    entry = models["b"]
    assert entry["object"] == "model"
    assert entry["created"] == running.gateway.library.created
    assert entry["status"] == {"value": "unloaded"}
    assert entry["context_size"] == 4096
    assert entry["aliases"] == ["org/alias"]
    assert entry["personalities"] == ["pirate"]
    assert entry["description"] == "Small."
    assert entry["capabilities"] == ["chat", "completion"]
    assert "personality" not in entry
    virtual = models["b:pirate"]
    assert (virtual["personality"], virtual["parent"]) == ("pirate", "b")
    assert "embeddings" in models["a/x"]["capabilities"]
    assert models["lost"]["context_size"] is None
    assert await listed(running) == models


async def test_loaded_models_tell_more(running: Running, tmp_path: Path) -> None:
    await running.gateway.scheduler.load("b")
    models = await listed(running)
    for name in ("b", "b:pirate"):
        assert models[name]["status"] == {"value": "loaded"}
        assert models[name]["context_size"] == 1024
        assert models[name]["meta"] == {"n_ctx": 2048, "n_params": 7}
        assert models[name]["architecture"]["input_modalities"] == ["text", "image"]
        assert "vision" in models[name]["capabilities"]
    assert models["a/x"]["status"] == {"value": "unloaded"}
    assert "meta" not in models["a/x"]


async def test_failed_model_is_listed_as_failed(running: Running) -> None:
    assert (await running.chat("lost"))[0] == 500
    status = (await listed(running))["lost"]["status"]
    assert status == {"value": "failed", "failed": True}


async def test_model_is_found_by_each_of_its_names(
    running: Running, subtests: pytest.Subtests
) -> None:
    for path, wanted in (
        ("b", "b"),
        ("b:pirate", "b:pirate"),
        ("b%3Apirate", "b:pirate"),
        ("a/x", "a/x"),
        ("a%2Fx", "a/x"),
        ("a%2fx", "a/x"),
        ("org/alias", "org/alias"),
    ):
        with subtests.test(f"{path!r:.80}"):
            url = URL(f"{running.url}/v1/models/{path}", encoded=True)
            headers = {"Authorization": f"Bearer {running.key}"}
            async with running.session.get(url, headers=headers) as response:
                assert response.status == 200, path
                assert (await response.json())["id"] == wanted
    assert (await running.json("GET", "/v1/models/nope"))[0] == 404
    async with running.openai() as client:
        assert (await client.models.retrieve("a/x")).id == "a/x"


async def test_models_are_listed_as_names_and_as_objects(
    running: Running, subtests: pytest.Subtests
) -> None:
    names = ["b", "a/x", "lost"]
    assert await running.json("GET", "/models") == (200, names)
    for query in ("?format=openai", "?format=router", "?reload=1"):
        with subtests.test(f"{query!r:.80}"):
            status, answer = await running.json("GET", f"/models{query}")
            assert (status, answer["data"][0]["id"]) == (200, "a/x")
    options: Any = {"base_url": running.url, "api_key": running.key, "max_retries": 0}
    async with openai.AsyncOpenAI(**options) as client:
        assert [m.id async for m in client.models.list()] == ["a/x", "b", "b:pirate", "lost"]
        assert (await client.models.retrieve("a/x")).id == "a/x"


async def test_keys_see_only_what_they_may_use(running: Running) -> None:
    assert running.gateway.ring is not None
    _, key = await running.gateway.ring.create("chat", models=["a/x"])
    assert list(await listed(running, key=key)) == ["a/x"]
    assert (await running.json("GET", "/v1/models/b", key=key))[0] == 404
    for path in ("/models/load", "/models/unload"):
        assert (await running.json("POST", path, json={"model": "a/x"}, key=key))[0] == 403


async def test_props_without_a_model_are_the_routers(running: Running) -> None:
    status, props = await running.json("GET", "/props")
    assert status == 200
    assert props["role"] == "router"
    assert props["max_instances"] == 3
    assert props["default_generation_settings"] == {"params": {}, "n_ctx": 0}
    assert re.match(r"b0-unknown llm-gateway \d", props["build_info"])


async def test_props_tell_the_build_of_llama_server(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """As a model that runs says it, or said it last."""

    def says(build: object) -> dict[str, Any]:
        made = fake_model(tmp_path)
        made["env"]["FAKE_ANSWERS"] = json.dumps({"/props": [200, {"build_info": build}]})
        return made

    models = {"new": says("b11549-abc12f3"), "odd": says(["b1-x"]), "words": says("from a shop")}
    async with make_gateway(models, llama_server=RECORDER) as running:
        for name, build in (
            ("odd", "b0-unknown"),
            ("words", "b0-unknown"),
            ("new", "b11549-abc12f3"),
        ):
            with subtests.test(f"{name!r:.80}"):
                await running.gateway.scheduler.load(name)
                for state in ("loaded", "unloaded"):
                    _, props = await running.json("GET", "/props")
                    assert props["build_info"].startswith(f"{build} llm-gateway "), state
                    await running.gateway.scheduler.unload(name)


async def test_tags_stand_in_the_list(make_gateway: MakeGateway, tiny_model: Path) -> None:
    """As the real llama-server takes and shows them."""
    entry = {"params": {"model": str(tiny_model), "ctxSize": 256, "threads": 1}}
    args = ["--tags", " small,fast , ,", "--tags", "b"]
    models = {
        "m": {**entry, "extraArgs": args, "env": {"LLAMA_ARG_TAGS": "c"}},
        "none": entry,
    }
    async with make_gateway(models, llama_server="auto") as running:
        for loaded in (False, True):
            if loaded:
                await running.gateway.scheduler.load("m")
                _, itself = await running.json("GET", "/upstream/m/v1/models")
                assert itself["data"][0]["tags"] == ["b", "c", "fast", "small"]
            found = await listed(running)
            assert found["m"]["tags"] == ["b", "c", "fast", "small"]
            assert found["none"]["tags"] == []


class Events:
    """What /models/sse sends."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while not (line := await self.response.content.readline()).startswith(b"data: "):
                assert line, "the stream has ended"
        event: dict[str, Any] = json.loads(line[6:])
        return event

    async def until(self, name: str, status: str) -> list[dict[str, Any]]:
        events = [await self.next()]
        while events[-1]["model"] != name or events[-1].get("data") != {"status": status}:
            events.append(await self.next())
        return events


@contextlib.asynccontextmanager
async def watched(running: Running) -> AsyncIterator[Events]:
    async with running.request("GET", "/models/sse") as response:
        assert response.content_type == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        yield Events(response)


async def test_load_and_unload_are_told_by_events(
    running: Running, subtests: pytest.Subtests
) -> None:
    """As llama.cpp's web UI does it: it waits for the events of the name it asked with."""
    async with watched(running) as events:
        body = {"model": "b:pirate"}
        assert await running.json("POST", "/models/load", json=body) == (200, {"success": True})
        seen = await events.until("b:pirate", "loaded")
        assert seen == [
            {"model": name, "event": event, "data": {"status": status}}
            for event, status in (("model_status", "loading"), ("status_change", "loaded"))
            for name in ("b", "b:pirate")
        ]
        status, answer = await running.json("POST", "/models/load", json={"model": "b"})
        assert (status, answer["error"]["code"]) == (400, "model_already_loaded")
        assert running.gateway.library.choices.common is None
        assert await running.json("POST", "/models/unload", json=body) == (200, {"success": True})
        seen = await events.until("b:pirate", "unloaded")
        assert {event["event"] for event in seen} == {"status_change"}
        status, answer = await running.json("POST", "/models/unload", json=body)
        assert (status, answer["error"]["code"]) == (400, "model_not_loaded")
        for wrong in ({}, {"model": ""}, {"model": 7}):
            with subtests.test(f"{wrong!r:.80}"):
                assert (await running.json("POST", "/models/load", json=wrong))[0] == 400
        assert (await running.json("POST", "/models/load", json={"model": "nope"}))[0] == 404


async def test_sleeping_model_is_listed_as_sleeping(
    make_gateway: MakeGateway, parrot_model: Path
) -> None:
    """llama-server's own sleep: the process stays, its memory is given back."""
    slept = {
        "params": {"model": str(parrot_model), "ctxSize": 512, "threads": 1},
        "extraArgs": ["--sleep-idle-seconds", "1"],
    }
    async with make_gateway({"m": slept}, llama_server="auto") as running, watched(running) as told:
        await running.gateway.scheduler.load("m")
        await told.until("m", "sleeping")
        assert (await listed(running))["m"]["status"] == {"value": "sleeping"}
        assert await running.json("GET", "/models?loaded=true") == (200, ["m"])
        scheduler = running.gateway.scheduler
        backend = scheduler.backend("m")
        assert backend is not None
        asleep = [backend.sleeping]
        scheduler.subscribe(lambda: asleep.append(backend.sleeping))
        assert (await running.chat("m"))[0] == 200
        await until(scheduler, lambda: False in asleep and asleep[-1])
        assert asleep[0]
        body = {"model": "m"}
        assert (await running.json("POST", "/models/unload", json=body))[0] == 200
        await told.until("m", "unloaded")
        assert running.gateway.scheduler.status()[0].starts == 1


async def test_a_load_that_fails_is_told(running: Running) -> None:
    async with watched(running) as events:
        assert (await running.json("POST", "/models/load", json={"model": "lost"}))[0] == 200
        await events.until("lost", "failed")
    _, errors = await running.json("GET", "/chat/errors")
    assert errors["errors"][-1]["model"] == "lost"


async def test_a_changed_models_json_is_told(running: Running) -> None:
    file = running.gateway.settings.models_file
    models = json.loads(file.read_text())
    async with watched(running) as events:
        del models["lost"]
        file.write_text(json.dumps(models))
        await listed(running)
        assert await events.next() == {"model": "*", "event": "models_reload"}


async def test_events_end_with_the_gateway(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        async with make_gateway({"m": model(tmp_path)}, llama_server=RECORDER) as running:
            headers = {"Authorization": f"Bearer {running.key}"}
            response = await session.get(f"{running.url}/models/sse", headers=headers)
        assert await response.content.read() == b""
