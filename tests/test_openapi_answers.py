"""Answers of a real gateway with real llama-servers, held against the OpenAPI document."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.cluster.gateways import cluster_of
from tests.cluster.machines import Machines
from tests.dialects import MESSAGES
from tests.harness import MakeGateway, Running
from tests.hub_server import HubServer, tiny_hub
from tests.route_table import openapi
from tests.scripted import Box
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow

DOCUMENT = json.loads(json.dumps(openapi()))
REPOSITORY = "me/tiny-GGUF"
CHAT = {"model": "m", "messages": MESSAGES, "max_tokens": 4}
#: What only some llama-servers, or nobody, answers.
NOT_ASKED = {
    ("POST", "/v1/audio/transcriptions"): "a model that hears",
    ("POST", "/v1/systemone"): "a model that decides",
    ("POST", "/v1/chat/completions/control"): "a stream of a model that thinks",
    ("POST", "/props"): "a llama-server with --props",
    ("GET", "/.well-known/acme-challenge/{token}"): "a file of an ACME client",
    ("GET", "/status"): "events, on and on",
    ("GET", "/models/sse"): "events, on and on",
    **{(method, "/upstream/{path}"): "whatever it likes" for method in ("PUT", "PATCH", "DELETE")},
    **{
        ("POST", f"/api/{name}"): "nobody: it is done elsewhere"
        for name in ("create", "copy", "push", "blobs/{digest}")
    },
}


def closed(schema: Any) -> Any:
    """The same with no field but those that are told of, unless it says that there are more."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


COMPONENTS = closed(DOCUMENT["components"])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with tiny_hub(REPOSITORY, tmp_path, monkeypatch) as server:
        yield server


class Asking:
    """Asks, and holds each answer against the document."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.asked: set[tuple[str, str]] = set()
        self.wrong: list[str] = []

    async def __call__(self, method: str, path: str, *, query: str = "", **options: Any) -> Any:
        """The answer, as JSON where it is. What stands in {} of ``path`` is the part's value."""
        values = options.pop("at", {})
        wanted = options.pop("status", 200)
        target = path
        for name, value in values.items():
            target = target.replace(f"{{{name}}}", value)
        async with self.running.request(method, target + query, **options) as response:
            kind, text = response.content_type, await response.text()
            if response.status != wanted:
                self.wrong.append(f"{method} {target}: {response.status} {text}")
                return None
        self.asked.add((method, path))
        told = DOCUMENT["paths"][path][method.lower()]["responses"].get(str(wanted))
        if told is None:
            self.wrong.append(f"{method} {path}: {wanted} is not told of")
            return None
        content = told.get("content", {})
        if not content:
            assert text == ""
            return None
        media = content.get(kind, content.get("*/*"))
        if media is None:
            self.wrong.append(f"{method} {path}: {kind} is not told of")
            return None
        is_json = kind.endswith("json") and kind != "application/x-ndjson"
        answer = json.loads(text) if is_json else text
        self.hold(f"{method} {path}", answer, media["schema"])
        return answer

    def hold(self, where: str, answer: Any, schema: Mapping[str, Any]) -> None:
        validator = Draft202012Validator({**closed(schema), "components": COMPONENTS})
        for error in validator.iter_errors(answer):
            for each in (error, *(error.context or ())):
                place = "/".join(map(str, each.absolute_path))
                self.wrong.append(f"{where}: {place}: {each.message[:300]}")


@pytest.fixture
async def running(
    make_gateway: MakeGateway,
    hub: HubServer,
    tmp_path: Path,
    parrot_model: Path,
    minilm_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Running]:
    storage = tmp_path / "LLMs"
    storage.mkdir()
    write_tiny_model(storage / "another.gguf")
    small = {"params": {"model": str(minilm_model), "threads": 1}}
    chat = {"params": {"model": str(parrot_model), "threads": 1, "ctxSize": 2048}}
    models = {
        "m": {
            **chat,
            "aliases": "alias",
            "extraArgs": ["--metrics", "--slot-save-path", str(tmp_path)],
            "personalities": {"poet": "You rhyme."},
        },
        "embed": {**small, "embeddings": True},
        "rerank": {**small, "reranking": True},
        "away": {"url": "http://127.0.0.1:9", "modelName": "there"},
    }
    machines = Machines(Box(tmp_path))
    await machines.start("attic")
    monkeypatch.setattr("gateway.app.cluster_of", cluster_of(machines))
    async with make_gateway(
        models,
        llama_server="auto",
        llm_storage=str(storage),
        responses={"store": True},
        cluster={"engine": "ray"},
    ) as running:
        yield running
    await machines.close()


async def test_every_answer_is_as_the_document_says(running: Running) -> None:
    ask = Asking(running)
    await public(ask)
    await of_models(ask)
    await of_text(ask)
    await of_ollama(ask)
    await of_entries(ask)
    await of_keys(ask)
    await of_the_box(ask)
    await of_pulls(ask)
    await of_nodes(ask)
    await ask("POST", "/models/unload", json={"model": "embed"})
    await ask("GET", "/unloadModel", query="?model=m")
    await ask("POST", "/unloadModel", json={"model": "rerank"})
    assert not ask.wrong
    operations = {
        (method.upper(), path)
        for path, found in DOCUMENT["paths"].items()
        for method, told in found.items()
        if told["tags"] not in (["Other addresses"], ["Refused"])
    }
    assert operations - ask.asked == NOT_ASKED.keys()


async def public(ask: Asking) -> None:
    for path in ("/ping", "/health", "/ready", "/openapi.json", "/docs"):
        await ask("GET", path, key=None)
    for name in ("models.json", "gateway.json"):
        await ask("GET", "/schemas/{name}", at={"name": name})


async def of_models(ask: Asking) -> None:
    await ask("POST", "/loadModel", json={"model": "m", "personality": "poet"})
    await ask("POST", "/models/load", json={"model": "embed"})
    await ask("GET", "/v1/models")
    await ask("GET", "/v1/models/{model}", at={"model": "m:poet"})
    for query in ("", "?loaded=true", "?format=openai"):
        await ask("GET", "/models", query=query)
    await ask("GET", "/clients", query="?model=m&key=true")
    await ask("GET", "/props", query="?model=m")
    await ask("GET", "/props")
    await ask("GET", "/lora-adapters", query="?model=m")
    await ask("POST", "/lora-adapters", query="?model=m", json=[])
    await ask("GET", "/slots", query="?model=m")
    await ask("GET", "/metrics", query="?model=m")
    await ask("POST", "/slots/{slot}", at={"slot": "0"}, query="?model=m&action=erase")
    await ask("GET", "/upstream/{path}", at={"path": "m/health"})
    await ask("POST", "/upstream/{path}", at={"path": "m/tokenize"}, json={"content": "hi"})


async def of_text(ask: Asking) -> None:
    text = {"model": "m", "max_tokens": 4}
    await ask("POST", "/v1/chat/completions", json=CHAT)
    await ask("POST", "/v1/responses", json={"model": "m", "input": "hi", "max_output_tokens": 16})
    await ask("POST", "/v1/messages", json=CHAT)
    await ask("GET", "/chat/ask", query="?question=hi&model=m")
    await ask("POST", "/v1/completions", json={**text, "prompt": "hi"})
    await ask("POST", "/v1/embeddings", json={"model": "embed", "input": "hi"})
    await ask("POST", "/embedding", json={"model": "embed", "content": "hi"})
    await ask("POST", "/embeddings", json={"model": "embed", "content": "hi"})
    for name in ("rerank", "reranking"):
        ranked = {"model": "rerank", "query": "x", "documents": ["a", "b"]}
        await ask("POST", f"/v1/{name}", json=ranked)
    await ask("POST", "/v1/chat/completions/input_tokens", json=CHAT)
    await ask("POST", "/v1/responses/input_tokens", json={"model": "m", "input": "hi"})
    await ask("POST", "/v1/messages/count_tokens", json=CHAT)
    await ask("POST", "/tokenize", json={"model": "m", "content": "hi"})
    await ask("POST", "/detokenize", json={"model": "m", "tokens": [3]})
    await ask("POST", "/apply-template", json=CHAT)
    await ask("POST", "/infill", json={**text, "input_prefix": "a", "input_suffix": "b"})
    await ask("POST", "/completion", json={**text, "prompt": "hi"})
    await ask("POST", "/completions", json={**text, "prompt": "hi"})


async def of_ollama(ask: Asking) -> None:
    short = {"stream": False, "options": {"num_predict": 4}}
    body = {"model": "m", "messages": MESSAGES, **short, "logprobs": True}
    await ask("POST", "/api/chat", json=body)
    await ask("POST", "/api/chat", json={"model": "m:latest"})
    await ask("POST", "/api/chat", json={**body, "stream": True})
    await ask("POST", "/api/generate", json={"model": "m", "prompt": "hi", **short})
    await ask("POST", "/api/generate", json={"model": "m", "prompt": "hi", "raw": True, **short})
    await ask("POST", "/api/embed", json={"model": "embed", "input": ["hi", "you"]})
    await ask("POST", "/api/embeddings", json={"model": "embed", "prompt": "hi"})
    for name in ("tags", "ps", "version"):
        await ask("GET", f"/api/{name}")
    for model in ("m", "embed", "away"):
        await ask("POST", "/api/show", json={"model": model})


async def of_entries(ask: Asking) -> None:
    entry = {"params": {"model": "another.gguf"}, "ttl": "5m"}
    name = {"name": "added"}
    await ask("GET", "/admin/storage")
    await ask("GET", "/admin/cache")
    await ask("DELETE", "/admin/cache")
    await ask("PUT", "/admin/models/{name}", at=name, json=entry, status=201)
    await ask("PUT", "/admin/models/{name}", at=name, json=entry)
    await ask("GET", "/admin/models/{name}", at=name)
    await ask("PATCH", "/admin/models/{name}", at=name, json={"ttl": None})
    await ask("DELETE", "/admin/models/{name}", at=name, status=204)
    await ask("GET", "/admin/models")
    await ask("GET", "/admin/models/{model}/log", at={"model": "m"}, query="?follow=false")
    await ask("GET", "/admin/models/{model}/log", at={"model": "away"}, query="?follow=false")


async def of_keys(ask: Asking) -> None:
    made = await ask("POST", "/admin/keys", json={"name": "plain"}, status=201)
    limited = {
        "name": "limited",
        "description": "a phone",
        "expires": "30d",
        "models": ["m"],
        "personalities": ["poet"],
        "defaultPersonality": "poet",
        "limits": {"rpm": 60, "tpd": 10_000},
    }
    other = await ask("POST", "/admin/keys", json=limited, status=201)
    await ask("POST", "/v1/chat/completions", json=CHAT, key=other["key"])
    await ask("PATCH", "/admin/keys/{id}", at={"id": made["id"]}, json={"limits": {"rpm": 3}})
    await ask("DELETE", "/admin/keys/{id}", at={"id": made["id"]})
    await ask("POST", "/admin/keys/reload")
    await ask("GET", "/admin/keys")
    for by in ("", "?by=day", "?by=key,model,day", "?format=csv"):
        await ask("GET", "/admin/usage", query=by)
    for key in (other["key"], ask.running.key):
        await ask("GET", "/key", key=key)
        await ask("GET", "/key/usage", key=key)
        await ask("GET", "/key/usage", query="?by=model&format=csv", key=key)


async def of_the_box(ask: Asking) -> None:
    # One that ends badly, so that there is something to tell of.
    await ask.running.chat("away")
    await ask("GET", "/chat/errors")
    stream = {**CHAT, "stream": True, "max_tokens": 100_000, "ignore_eos": True}
    async with ask.running.request("POST", "/v1/chat/completions", json=stream) as response:
        await response.content.readany()
        seen = await ask("GET", "/admin/requests", query="?limit=2")
        await ask("GET", "/admin/status")
        one = {"id": seen["under_way"][0]["id"]}
        await ask("DELETE", "/admin/requests/{id}", at=one, status=204)
    short = {**stream, "max_tokens": 4}
    async with ask.running.request("POST", "/v1/chat/completions", json=short) as response:
        again = {"id": response.headers["X-Stream-Id"]}
        await response.read()
    await ask("GET", "/v1/streams/{id}", at=again)
    await ask("DELETE", "/v1/streams/{id}", at=again, status=204)
    await of_responses(ask)
    await of_conversations(ask)
    await ask("GET", "/admin/requests")
    await ask("GET", "/admin/system")
    await ask("GET", "/admin/system/history")
    await ask("GET", "/admin/log", query="?follow=false")


async def of_responses(ask: Asking) -> None:
    said = {"model": "m", "input": "hi", "max_output_tokens": 4}
    one = {"response_id": (await ask("POST", "/v1/responses", json=said))["id"]}
    await ask("GET", "/v1/responses/{response_id}", at=one)
    await ask("GET", "/v1/responses/{response_id}/input_items", at=one)
    await ask("DELETE", "/v1/responses/{response_id}", at=one)
    begun = await ask("POST", "/v1/responses", json={**said, "background": True})
    one = {"response_id": begun["id"]}
    await ask("POST", "/v1/responses/{response_id}/cancel", at=one)


async def of_conversations(ask: Asking) -> None:
    said = {"items": [{"role": "user", "content": "hi"}], "metadata": {"about": "a test"}}
    one = {"conversation_id": (await ask("POST", "/v1/conversations", json=said))["id"]}
    at = "/v1/conversations/{conversation_id}"
    await ask("GET", at, at=one)
    await ask("POST", at, at=one, json={"metadata": {}})
    added = await ask("POST", at + "/items", at=one, json={"items": said["items"]})
    await ask("GET", at + "/items", at=one)
    item = {**one, "item_id": added["first_id"]}
    await ask("GET", at + "/items/{item_id}", at=item)
    await ask("DELETE", at + "/items/{item_id}", at=item)
    await ask("DELETE", at, at=one)


async def of_nodes(ask: Asking) -> None:
    async with asyncio.timeout(60):
        while not (await ask("GET", "/admin/nodes"))["nodes"]:
            await asyncio.sleep(0.1)
    await ask("POST", "/admin/nodes/{name}/drain", at={"name": "attic"})
    await ask("POST", "/admin/nodes/{name}/resume", at={"name": "attic"})
    await ask("GET", "/admin/models")
    await ask("GET", "/admin/status")
    await ask("DELETE", "/admin/nodes/{name}", at={"name": "attic"})


async def of_pulls(ask: Asking) -> None:
    await ask("GET", "/admin/hub", query=f"?model={REPOSITORY}")
    begun = await ask("POST", "/admin/pulls", json={"model": REPOSITORY}, status=202)
    async with asyncio.timeout(60):
        while True:
            (pull,) = (await ask("GET", "/admin/pulls"))["pulls"]
            if pull["ended"] is not None:
                break
            await asyncio.sleep(0.1)
    assert pull["error"] is None
    await ask("DELETE", "/admin/pulls/{id}", at={"id": begun["id"]})
    for stream in (True, False):
        await ask("POST", "/api/pull", json={"model": f"hf.co/{REPOSITORY}", "stream": stream})
    await ask("DELETE", "/api/delete", json={"model": pull["name"]})
