"""How models elsewhere are listed, loaded and unloaded, and what `check` says of them."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.backend import State
from gateway.cli import main
from tests.api.remote.entries import SECRET, entry
from tests.harness import MakeGateway, fake_model
from tests.remote_server import RemoteServer
from tests.scripted import until

# --- lists, loading, unloading -------------------------------------------------------------


async def test_a_model_elsewhere_is_listed_like_any_other(
    make_gateway: MakeGateway, server: RemoteServer, caplog: Any
) -> None:
    caplog.set_level("DEBUG")
    models = {"m": entry(server, personalities={"p": "You."}), "here": {"params": {"model": "x"}}}
    async with make_gateway(models) as running:
        assert (await running.json("POST", "/loadModel", json={"model": "m"}))[0] == 200
        pages = {}
        for path in ("/v1/models", "/admin/models", "/admin/status", "/models?loaded=true"):
            pages[path] = (await running.json("GET", path))[1]
        _, key = await running.gateway.ring.create("user", "", admin=False)
        _, public = await running.json("GET", "/v1/models", key=key)
        _, log = await running.json("GET", "/admin/models/m/log?follow=false")
        assert (await running.json("POST", "/unloadModel?model=m"))[0] == 200
        _, after = await running.json("GET", "/admin/models")
    here, listed, virtual = pages["/v1/models"]["data"]
    assert (listed["remote"], listed["context_size"]) == (True, 4096)
    assert listed["status"] == {"value": "loaded"}
    up = {"url": server.url, "up": True, "in_flight": 0, "error": None, "retry_in": None}
    assert listed["servers"] == [up]
    assert (virtual["id"], virtual["remote"]) == ("m:p", True)
    assert "remote" not in here
    status = pages["/admin/models"]["models"][0]
    assert (status["state"], status["memory"], status["servers"]) == ("ready", None, [up])
    assert pages["/admin/models"]["models"][1]["servers"] == []
    assert pages["/models?loaded=true"] == ["m"]
    assert [one.get("remote") for one in public["data"]] == [None, True, True]
    assert server.url not in json.dumps(public)
    assert f"{server.url} is up" in log["lines"]
    assert (after["models"][0]["state"], after["models"][0]["servers"][0]["up"]) == (
        "stopped",
        False,
    )
    assert "secret" not in json.dumps([pages, public, log, after]) + caplog.text


async def test_router_api_loads_and_unloads_remote_models(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    async with make_gateway({"m": entry(server)}) as running:
        scheduler = running.gateway.scheduler

        async def post(path: str) -> int:
            return (await running.json("POST", path, json={"model": "m"}))[0]

        assert await post("/models/load") == 200
        await until(scheduler, lambda: scheduler.loaded() == ["m"])
        assert await post("/models/load") == 400  # it is
        assert await post("/models/unload") == 200
        await until(scheduler, lambda: scheduler.status()[0].state is State.STOPPED)
        assert await post("/models/unload") == 400  # it isn't
        await server.stop()
        assert await post("/models/load") == 200
        await until(scheduler, lambda: bool(scheduler.status()[0].last_error))
        assert await post("/loadModel") == 502


async def test_it_has_its_place_beside_models_of_this_machine(
    make_gateway: MakeGateway, server: RemoteServer, tmp_path: Path
) -> None:
    models = {"here": fake_model(tmp_path), "m": {**entry(server), "preload": True, "ttl": "1h"}}
    async with make_gateway(models, scheduler={"max_loaded": 1}) as running:
        scheduler = running.gateway.scheduler
        await until(scheduler, lambda: scheduler.loaded() == ["m"])
        assert (await running.chat("here"))[0] == 200
        assert (await running.chat("m"))[0] == 200
        assert scheduler.loaded() == ["here", "m"]
        file = running.gateway.library.file
        models["m"]["url"] = "http://127.0.0.1:9"
        await asyncio.to_thread(file.write_text, json.dumps(models))
        await running.gateway.library.refresh()
        status, answer = await running.chat("m")
        assert (status, "cannot be used" in answer["error"]["message"]) == (502, True)
        assert scheduler.loaded() == ["here"]


# --- llm-gateway check ---------------------------------------------------------------------


def check(tmp_path: Path, models: Any, capsys: Any) -> tuple[int, str, str]:
    (tmp_path / "conf").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/models.json").write_text(json.dumps(models))
    config = tmp_path / "conf/gateway.yaml"
    config.write_text("llama_server: /nowhere/llama-server\n")
    code = main(["check", "--config", str(config)])
    return (code, *capsys.readouterr())


def test_check_finds_everything_at_once(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    models = {
        "a": {"url": "http://box", "key": "env:NO_SUCH_KEY", "caFile": "/nowhere/ca.pem"},
        "b": {"url": "http://box", "key": f"file:{tmp_path / 'no-key'}"},
    }
    code, out, _ = check(tmp_path, models, capsys)
    assert code == 1
    for says in (
        "a.key: the environment variable NO_SUCH_KEY is not set",
        "a.caFile: the file /nowhere/ca.pem of CAs: No such file or directory",
        f"b.key: the file {tmp_path / 'no-key'} cannot be read: No such file or directory",
    ):
        with subtests.test(f"{says!r:.80}"):
            assert says in out
    assert "llama_server" not in out


def test_check_needs_no_llama_server_where_all_models_are_elsewhere(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", SECRET)
    code, out, err = check(tmp_path, {"a": {"url": "http://box", "key": "env:THE_KEY"}}, capsys)
    assert code == 0, out
    assert err == "warning: a: the key goes to http://box unencrypted\n"
    assert os.environ["THE_KEY"] not in out + err
