"""Models fetched and removed over Ollama's API, from a hub on this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.pulls import Pull
from gateway.errors import BadRequest
from gateway.models.paths import resolve_model_path
from gateway.ollama.pulling import lines_of, repository
from tests.harness import MakeGateway, Running
from tests.hub_server import HubServer, tiny_hub

NAME = "me/tiny-GGUF"


def pulled(stage: str, **more: Any) -> Pull:
    return Pull("1", NAME, None, 0.0, stage, **more)


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("hf.co/unsloth/Qwen3-4B-GGUF:Q4_K_M", "unsloth/Qwen3-4B-GGUF:Q4_K_M"),
        ("huggingface.co/a/b", "a/b"),
        ("https://hf.co/a/b:latest", "a/b"),
        ("a/b", "a/b"),
    ],
)
def test_a_repository_of_the_hub_is_meant(model: str, wanted: str) -> None:
    assert repository(model) == wanted


@pytest.mark.parametrize("model", ["llama3.2", "llama3.2:3b", "", "qwen3:latest"])
def test_a_name_of_ollamas_library_is_refused(model: str) -> None:
    with pytest.raises(BadRequest, match="name a repository of the hub"):
        repository(model)


def test_progress_is_told_in_ollamas_words() -> None:
    assert lines_of(pulled("listing")) == [{"status": "pulling manifest"}]
    assert lines_of(pulled("waiting", note="waits for another")) == [
        {"status": "waits for another"}
    ]
    coming = {"status": "pulling a.gguf", "digest": "a.gguf", "total": 9, "completed": 3}
    assert lines_of(pulled("downloading", file="a.gguf", total=9, bytes=3)) == [coming]
    assert lines_of(pulled("checking")) == [{"status": "verifying sha256 digest"}]
    assert lines_of(pulled("done"))[-1] == {"status": "success"}
    assert lines_of(pulled("failed", error={"message": "no room"})) == [{"error": "no room"}]
    assert lines_of(pulled("ended")) == [{"error": "the pull was ended"}]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with tiny_hub(NAME, tmp_path, monkeypatch) as server:
        yield server


async def pull(running: Running, model: str, **more: Any) -> list[dict[str, Any]]:
    body = {"model": model, **more}
    async with running.request("POST", "/api/pull", json=body) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "application/x-ndjson"
        return [json.loads(line) async for line in response.content]


@pytest.mark.slow
async def test_a_model_is_fetched_and_removed(
    make_gateway: MakeGateway, server: HubServer, tmp_path: Path
) -> None:
    storage = tmp_path / "LLMs"
    async with (
        asyncio.timeout(90),
        make_gateway({}, llama_server="auto", llm_storage=str(storage)) as running,
    ):
        told = await pull(running, f"hf.co/{NAME}")
        assert told[0] == {"status": "pulling manifest"}
        assert told[-1] == {"status": "success"}
        assert not any("error" in line for line in told)
        assert (await pull(running, NAME))[-1] == {"status": "success"}  # it is here already
        _, tags = await running.json("GET", "/api/tags")
        (model,) = tags["models"]
        again = {"model": model["name"], "stream": False}
        assert await running.json("POST", "/api/pull", json=again) == (200, {"status": "success"})
        spec = running.gateway.library.catalog.models[model["name"].removesuffix(":latest")]
        assert spec.file is not None
        file = resolve_model_path(spec.file, storage)
        status, _ = await running.json("DELETE", "/api/delete", json={"model": model["name"]})
        assert status == 200
        assert file.exists()  # it may be somebody else's, too
        status, said = await running.json("DELETE", "/api/delete", json={"model": model["name"]})
        assert (status, list(said)) == (404, ["error"])
        (*_, last) = await pull(running, "me/none-GGUF")
        assert "error" in last
        body = {"model": "me/none-GGUF", "stream": False}
        status, said = await running.json("POST", "/api/pull", json=body)
        assert status == 502
        assert isinstance(said["error"], str)


async def test_only_administrators_fetch_and_remove(make_gateway: MakeGateway) -> None:
    async with make_gateway({}) as running:
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create("plain", "")
        for method, path in (("POST", "/api/pull"), ("DELETE", "/api/delete")):
            status, said = await running.json(method, path, json={"model": NAME}, key=key)
            assert status == 403
            assert isinstance(said["error"], str)
