"""What lists and /props say of models that aren't loaded, held against the real llama-server."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.backends import facts
from gateway.models.gguf_header import read_header
from tests.gguf_file import Kind, entry, write_gguf
from tests.harness import DEMO_GGUF, MakeGateway, Running
from tests.tiny_model import write_tiny_model

TRAINED = 32768


async def meta_of(running: Running, model: str) -> dict[str, Any]:
    status, answer = await running.json("GET", f"/v1/models/{model}")
    assert status == 200
    assert answer["context_size"] == answer.get("meta", {}).get("n_ctx")
    return answer.get("meta", {})


async def context_in_props(running: Running, model: str) -> tuple[int | None, Any]:
    status, answer = await running.json("GET", f"/props?model={model}")
    assert status == 200
    return answer["default_generation_settings"].get("n_ctx"), answer.get("total_slots")


#: What models.json says beside the file, and whether the context is known before the first load.
ENTRIES: dict[str, tuple[dict[str, Any], bool]] = {
    "nothing": ({}, True),
    "zero": ({"ctxSize": 0}, True),
    "odd": ({"ctxSize": 1000}, True),
    "tiny": ({"ctxSize": 100}, True),
    "more than trained": ({"ctxSize": 99_999}, True),
    "slots": ({"ctxSize": 1000, "parallel": 3}, True),
    "slots of nothing": ({"parallel": 2}, False),
    "shared": ({"ctxSize": 1024, "parallel": 2, "extraArgs": ["--kv-unified"]}, True),
    "variable": ({"env": {"LLAMA_ARG_CTX_SIZE": "768"}}, True),
    "flag": ({"ctxSize": 512, "extraArgs": ["-c", "768"]}, True),
}


async def test_what_is_said_before_is_what_llama_server_says_then(
    make_gateway: MakeGateway, tiny_model: Path
) -> None:
    models = {}
    for name, (entry_, _) in ENTRIES.items():
        params = {"model": str(tiny_model), "threads": 1}
        if "ctxSize" in entry_:
            params["ctxSize"] = entry_["ctxSize"]
        models[name] = {"params": params, **{k: v for k, v in entry_.items() if k != "ctxSize"}}
    models["demo"] = {"params": {"model": DEMO_GGUF, "threads": 1}}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 2}}
    async with make_gateway(models, **settings) as running:
        before = {name: await meta_of(running, name) for name in models}
        props = {name: await context_in_props(running, name) for name in models}
        assert {s.starts for s in running.gateway.scheduler.status()} == {0}  # nothing was loaded
        for name in models:
            known = ENTRIES.get(name, ({}, True))[1]
            await running.gateway.scheduler.load(name)
            real = await meta_of(running, name)
            assert before[name]["n_ctx_train"] == real["n_ctx_train"], name
            assert before[name].get("n_ctx") == (real["n_ctx"] if known else None), name
            in_props = await context_in_props(running, name)
            assert props[name] == (in_props if known else (None, in_props[1])), name
            await running.gateway.scheduler.unload(name)
            assert await meta_of(running, name) == real, name  # what it said is remembered


async def test_what_a_model_said_is_forgotten_with_its_file(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "FRESH", 0.0)
    file = tmp_path / "m.gguf"
    write_tiny_model(file)
    entry_ = {"params": {"model": str(file), "threads": 1}, "parallel": 2}
    async with make_gateway({"m": entry_}, llama_server="auto") as running:
        await running.gateway.scheduler.load("m")
        assert (await meta_of(running, "m"))["n_embd"] == 64
        await running.gateway.scheduler.unload("m")
        assert (await meta_of(running, "m"))["n_embd"] == 64
        write_gguf(file, header(4096), [])
        assert await meta_of(running, "m") == {"n_ctx_train": 4096}
        file.write_bytes(b"no model")
        assert await meta_of(running, "m") == {}
        file.unlink()
        assert await meta_of(running, "m") == {}
        models = {"m": {**entry_, "parallel": 1}}
        write_gguf(file, header(4096), [])
        running.gateway.settings.models_file.write_text(json.dumps(models))
        await running.json("GET", "/models")
        assert await meta_of(running, "m") == {"n_ctx_train": 4096, "n_ctx": 4096}


def header(context: int, template: str | None = None) -> list[bytes]:
    found = [
        entry("general.architecture", Kind.STRING, "made-up"),
        entry("made-up.context_length", Kind.U32, context),
    ]
    if template is not None:
        found.append(entry("tokenizer.chat_template", Kind.STRING, template))
    return found


async def test_props_of_an_unloaded_model_come_from_its_file(
    make_gateway: MakeGateway, tmp_path: Path, tiny_model: Path, subtests: pytest.Subtests
) -> None:
    file, projector, plain = (tmp_path / f"{name}.gguf" for name in ("m", "mmproj", "plain"))
    write_gguf(file, header(2048, "{{ messages }}"), [])
    write_gguf(plain, header(2048), [])
    write_gguf(projector, [entry("clip.has_audio_encoder", Kind.BOOL, True)], [])
    models: dict[str, Any] = {
        "m": {"params": {"model": str(file), "ctxSize": 512}, "parallel": 2},
        "hears": {"params": {"model": str(file)}, "mmproj": str(projector)},
        "named": {"params": {"model": str(file)}, "template": "chatml"},
        "args": {
            "params": {"model": str(file)},
            "extraArgs": [
                *("--chat-template-file", "x.jinja", "--mmproj", "y.gguf"),
                *("--override-kv", "made-up.context_length=int:9"),
            ],
        },
        "plain": {"params": {"model": str(plain)}},
        "lost": {"params": {"model": "nowhere.gguf"}},
        "damaged": {"params": {"model": str(tmp_path / "damaged.gguf")}},
        "elsewhere": {"url": "http://127.0.0.1:9"},
    }
    (tmp_path / "damaged.gguf").write_bytes(file.read_bytes()[:40])
    async with make_gateway(models) as running:
        assert running.gateway.ring is not None
        _, chat = await running.gateway.ring.create("chat")
        blind = {"vision": False, "audio": False}
        expected = {
            "status": {"value": "unloaded"},
            "default_generation_settings": {"params": {}, "n_ctx": 256},
            "total_slots": 2,
            "model_alias": "m",
            "model_path": "m.gguf",
            "modalities": blind,
            "chat_template": "{{ messages }}",
        }
        assert await running.json("GET", "/props?model=m", key=chat) == (200, expected)
        for query in ("", "&autoload=false"):
            found = await running.json("GET", f"/props?model=m{query}")
            assert found == (200, {**expected, "model_path": str(file)})

        async def props(model: str) -> Any:
            status, answer = await running.json("GET", f"/props?model={model}")
            assert status == 200
            return answer

        hears = await props("hears")
        assert hears["modalities"] == {"vision": False, "audio": True}
        assert hears["default_generation_settings"]["n_ctx"] == 2048
        assert "chat_template" not in await props("named")
        assert "chat_template" not in await props("plain")
        args = await props("args")
        assert {"chat_template", "modalities"}.isdisjoint(args)
        assert args["default_generation_settings"] == {"params": {}}
        for model in ("lost", "damaged", "elsewhere"):
            with subtests.test(f"{model!r:.80}"):
                status, answer = await running.json("GET", f"/props?model={model}")
                assert (status, answer["error"]["code"]) == (400, "model_not_loaded")
        for route in ("/slots", "/lora-adapters"):  # of these only a running model knows
            status, answer = await running.json("GET", f"{route}?model=m")
            assert (status, answer["error"]["code"]) == (400, "model_not_loaded")
        _, limited = await running.gateway.ring.create("limited", models=["plain"])
        assert (await running.json("GET", "/props?model=m", key=limited))[0] == 404
        assert {s.starts for s in running.gateway.scheduler.status()} == {0}


async def test_the_openai_client_sees_it(make_gateway: MakeGateway, tiny_model: Path) -> None:
    models = {"m": {"params": {"model": str(tiny_model), "ctxSize": 4096}}}
    async with make_gateway(models) as running, running.openai() as client:
        (found,) = [model async for model in client.models.list()]
        assert found.model_extra is not None
        assert found.model_extra["meta"] == {"n_ctx": 4096, "n_ctx_train": TRAINED}


async def test_a_slow_disk_keeps_no_list_waiting(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list says what is known by then; the next one more. Each header is read once."""
    slow, quick = tmp_path / "slow.gguf", tmp_path / "quick.gguf"
    for file in (slow, quick):
        write_gguf(file, header(1024), [])
    go, reads = threading.Event(), []

    def slowly(file: Path, **options: Any) -> Any:
        reads.append(file)
        if file == slow:
            assert go.wait(30)
        return read_header(file, **options)

    monkeypatch.setattr(facts, "read_header", slowly)
    monkeypatch.setattr(facts, "PATIENCE", 0.05)
    models = {
        name: {"params": {"model": str(tmp_path / f"{name}.gguf")}} for name in ("quick", "slow")
    }
    async with make_gateway(models) as running:
        async with asyncio.timeout(10):
            for _ in range(3):
                assert await meta_of(running, "slow") == {}
            assert (await running.json("GET", "/health"))[0] == 200
        go.set()
        async with asyncio.timeout(10):
            while not await meta_of(running, "slow"):
                pass  # each look is a request
        known = {"n_ctx": 1024, "n_ctx_train": 1024}
        assert await meta_of(running, "slow") == known
        assert await meta_of(running, "quick") == known
        for _ in range(5):
            assert (await running.json("GET", "/v1/models"))[0] == 200
        assert sorted(reads) == [quick, slow]
