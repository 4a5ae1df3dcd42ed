"""GET /admin/system and its history, the gateway's own log, and what the hub has."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway import __version__
from gateway.backends.devices import gpu
from gateway.backends.machine import Machine
from gateway.cli import main
from gateway.history import History
from gateway.tasks import cancel_and_wait, spawn
from gateway.tls import self_signed
from tests.harness import COMMAND, MakeGateway, Running, Served, fake_model, opened, project
from tests.hub_server import HubServer, Repo, hub_server

Serve = Callable[..., Served]
GIB = 2**30


async def asked(running: Running, path: str) -> Any:
    status, answer = await running.json("GET", path)
    assert status == 200, answer
    return answer


async def plain_key(running: Running) -> str:
    assert running.gateway.ring is not None
    _, key = await running.gateway.ring.create("phone", "")
    return str(key)


async def test_system_report_tells_the_machine_to_administrators(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        told = await asked(running, "/admin/system")
        settings = running.gateway.settings
        assert told["version"] == __version__
        assert told["urls"] == running.gateway.urls
        assert told["paths"]["models_file"] == str(settings.models_file)
        assert told["paths"]["config"].endswith("conf/gateway.yaml")
        assert told["llama_server"]["path"] == settings.llama_server
        assert told["certificate"] is None
        assert {one["name"] for one in told["disks"]} == {"data_dir", "llm_storage"}
        assert all(0 <= one["free"] <= one["total"] for one in told["disks"])
        assert told["models_file"]["error"] is None
        for path in ("", "/history"):
            status, _ = await running.json(
                "GET", f"/admin/system{path}", key=await plain_key(running)
            )
            assert status == 403


async def test_its_problems_are_those_of_check(
    make_gateway: MakeGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {
        "good": fake_model(tmp_path),
        "bad": {"params": {"model": "nowhere.gguf"}},
        "odd": {**fake_model(tmp_path), "ttl": 5, "embeddings": True, "reranking": True},
    }
    async with make_gateway(models) as running:
        file = running.gateway.settings.models_file
        file.write_text(json.dumps(models, indent=2))
        told = await asked(running, "/admin/system")
        config = told["paths"]["config"]
        capsys.readouterr()
        assert await asyncio.to_thread(main, ["check", "--json", "--config", config]) == 1
        listed = json.loads(capsys.readouterr().out)
        of_check = [one for one in told["problems"] if one["source"] == "check"]
        errors = [one for one in of_check if one["level"] == "error"]
        assert [one["message"] for one in errors] == [one["message"] for one in listed["problems"]]
        warnings = [one["message"] for one in of_check if one["level"] == "warning"]
        assert warnings == listed["warnings"]
        (bad,) = (one for one in errors if one["key"] == "bad.params.model")
        assert (bad["file"], bad["value"]) == (str(file), "'nowhere.gguf'")
        assert "nowhere.gguf" in file.read_text().splitlines()[bad["line"] - 1]
        levels = [one["level"] for one in told["problems"]]
        assert levels == sorted(levels)  # errors come first
        of_doctor = [one["key"] for one in told["problems"] if one["source"] == "doctor"]
        assert not [key for key in of_doctor if key == "model bad"]  # that is said already


async def test_broken_models_json_is_told(make_gateway: MakeGateway, tmp_path: Path) -> None:
    models = {"m": fake_model(tmp_path)}
    async with make_gateway(models) as running:
        assert (await asked(running, "/admin/system"))["models_file"]["error"] is None
        file = running.gateway.settings.models_file
        file.write_text('{"m": {\n  "params": {"model": "x.gguf",}}}')
        told = await asked(running, "/admin/system")
        assert told["models_file"]["line"] == 2
        assert "the comma behind the last entry" in told["models_file"]["error"]
        lines = {(one["file"], one["line"]) for one in told["problems"]}
        assert (str(file), 2) in lines
        file.write_text('{\n"m": {\n  "params": {"model": "x.gguf"},\n  "colour": 1}}')
        told = await asked(running, "/admin/system")
        assert told["models_file"]["line"] == 4
        assert "m.colour" in [one["key"] for one in told["problems"]]
        file.write_text(json.dumps(models))
        told = await asked(running, "/admin/system")
        assert told["models_file"] == {
            "error": None,
            "line": None,
            "note": None,
            "demonstration": False,
        }


async def test_home_made_certificate_is_told(make_gateway: MakeGateway, tmp_path: Path) -> None:
    made = self_signed(["box.example.com", "127.0.0.1"], tmp_path, days=30)
    tls = {
        "enabled": True,
        "private_key": str(made.private_key),
        "certificate": str(made.certificate),
        "ca_chain": str(made.chain),
    }
    async with make_gateway({}, tls=tls) as running:
        connector = aiohttp.UnixConnector(running.gateway.runtime.control_socket)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def certificate() -> dict[str, Any]:
                async with session.get("http://box/admin/system") as response:
                    found: dict[str, Any] = (await response.json())["certificate"]
                    return found

            async with asyncio.timeout(20):  # it is looked at beside the start
                while (told := await certificate())["not_after"] is None:
                    await asyncio.sleep(0.02)
            assert (told["source"], told["trusted_elsewhere"]) == ("home-made", False)
            assert "LLM-API Gateway local CA" in told["issuer"]
            assert told["names"] == ["box.example.com", "127.0.0.1"]
            end = datetime.fromisoformat(told["not_after"])
            assert told["days_left"] == (end - datetime.now(UTC)).days in (29, 30)
            assert told["renewal"]["last_error"] is None
            # What came in its place can't be served: the old one stays, and that is told.
            made.certificate.write_text("no certificate")
            await running.gateway.reload()
            told = await certificate()
            assert "holds no certificate" in told["renewal"]["last_error"]
            assert told["names"] == ["box.example.com", "127.0.0.1"]


# --- over time -------------------------------------------------------------------------------


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    return gate


async def test_history_tells_load_and_memory_over_time(
    make_gateway: MakeGateway,
    tmp_path: Path,
    gate: Path,
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    monkeypatch.setattr("gateway.history.FINE", 0.1)
    monkeypatch.setattr("gateway.history.SHORT", 0.01)
    models = {"m": fake_model(tmp_path, gate=gate, chunks=4)}
    async with make_gateway(models) as running:
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        async with running.request("POST", "/v1/chat/completions", json=body) as response:
            await response.content.readany()
            told = await asked(running, "/admin/system/history?range=5m")
            assert told["running"][-1] == 1
            with opened(gate):
                await response.read()

        async with asyncio.timeout(20):
            while not any(told["completion_tokens_per_second"]):
                told = await asked(running, "/admin/system/history?range=5m")
        lists = ("gateway_memory", "models_memory", "running", "waiting")
        assert {len(told[name]) for name in lists} == {len(told["times"])}
        assert told["times"] == sorted(set(told["times"]))
        assert time.time() - told["times"][-1] < 5
        (ram,) = told["devices"]
        assert ram["name"] == "RAM"
        assert all(0 < used < ram["total"] for used in ram["used"])
        # The gateway is in the tests' own process: its peak bounds it (ru_maxrss: KiB, inexact).
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        assert 2**20 < told["gateway_memory"][-1] < 2 * peak
        for wrong in ("8d", "0", "soon", "59s", ""):
            with subtests.test(f"{wrong!r:.80}"):
                status, answer = await running.json("GET", f"/admin/system/history?range={wrong}")
                assert (status, answer["error"]["param"]) == (400, "range")


async def test_what_cannot_be_seen_once_is_seen_again(
    make_gateway: MakeGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gateway.history")
    monkeypatch.setattr("gateway.history.FINE", 0.01)
    cgroup = tmp_path / "proc/self/cgroup"
    cgroup.parent.mkdir(parents=True)
    cgroup.write_text("of another kernel, which nobody knows\n")

    def failures() -> int:
        return sum("memory and load cannot be seen" in one for one in caplog.messages)

    async with make_gateway({}) as running:
        history = History(running.gateway.scheduler, running.gateway.accounting, root=tmp_path)
        keeping = spawn(history.keep(), name="keeps")
        async with asyncio.timeout(20):
            while not failures():
                await asyncio.sleep(0.01)
            assert history.samples.last is None
            cgroup.write_text("")
            while history.samples.last is None:
                await asyncio.sleep(0.01)
        assert not keeping.done()
        await cancel_and_wait(keeping)
    assert failures() == 1
    assert "memory and load are seen again" in caplog.messages


async def test_a_gpu_is_not_woken_up_for_it(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """It is in the samples if it was looked at lately; it is looked at where a model is on it."""
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        scheduler = running.gateway.scheduler
        async with asyncio.timeout(20):
            while scheduler.accounts is None:
                await asyncio.sleep(0.02)
        capacity = scheduler.accounts.capacity
        assert capacity is not None
        looks = []

        def read() -> Machine:
            looks.append(time.monotonic())
            return Machine((gpu("CUDA0", "a GPU", 8 * GIB, 6 * GIB),), "", True, True)

        capacity.read = read
        await capacity.look()
        history = History(scheduler, running.gateway.accounting)
        assert dict((await history.now()).used)["CUDA0"] == 2 * GIB
        assert len(looks) == 1
        capacity.memory = type(capacity.memory)(**{**asdict_of(capacity.memory), "seen": -1e6})
        await history.look_at_gpus()
        assert "CUDA0" not in dict((await history.now()).used)
        assert len(looks) == 1


def asdict_of(memory: Any) -> dict[str, Any]:
    return {name: getattr(memory, name) for name in asdict(memory)}


# --- its own log -----------------------------------------------------------------------------


@pytest.fixture
def served(serve: Serve, tmp_path: Path) -> Served:
    log = {"format": "json"}  # it is text for people all the same
    return serve("--config", str(project(tmp_path / "p", {}, log=log)))


async def test_log_of_the_gateway_is_served_and_followed(
    served: Served, subtests: pytest.Subtests
) -> None:
    url = served.wait_for(r'listening on (http[^",\s]+)', served.out)
    key = served.wait_for(r"\s(llmgw_\w+)", served.log)  # JSON is alone on stdout
    headers = {"X-Api-Key": key}
    async with aiohttp.ClientSession(url, headers=headers) as session:

        async def lines(query: str = "") -> list[str]:
            async with session.get(f"/admin/log?follow=false{query}") as response:
                found: list[str] = (await response.json())["lines"]
                return found

        assert any("INFO gateway.server: listening on" in line for line in await lines())
        async with session.get("/admin/log?level=warning") as following:
            assert following.content_type == "text/event-stream"
            # A key where the route belongs, and one in a query: neither may be told.
            async with session.get(f"/v1/{key}?authKey={key}") as response:
                assert response.status == 404
            (served.root / "p/data/models.json").write_text("[")
            async with session.get("/v1/models") as response:
                assert response.status == 200
            told = b""
            async with asyncio.timeout(20):
                while b"models.json is broken" not in told:
                    told += await following.content.readline()
            assert b"INFO" not in told
            assert b"data: " in told
        async with asyncio.timeout(20):
            while not any("/v1/llmgw_... 404" in line for line in await lines()):
                await asyncio.sleep(0.05)
        assert key not in "".join(await lines())
        assert len(await lines("&lines=2")) == 2
        warnings = await lines("&level=warning")
        assert warnings
        assert not [line for line in warnings if " INFO " in line]
        for query, param in (("level=loud", "level"), ("lines=0", "lines"), ("lines=x", "lines")):
            with subtests.test(f"{query!r:.80}"):
                async with session.get(f"/admin/log?follow=false&{query}") as response:
                    assert response.status == 400
                    assert (await response.json())["error"]["param"] == param


# --- the hub ---------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server() as server:
        files = {"tiny-Q4_0.gguf": bytes(100), "tiny-Q8_0.gguf": bytes(200)}
        server.repos["me/tiny-GGUF"] = Repo(files)
        server.repos["me/shut-GGUF"] = Repo(files, gated="manual")
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
        yield server


@pytest.fixture
async def running(make_gateway: MakeGateway, hub: HubServer) -> AsyncIterator[Running]:
    async with make_gateway({}) as running:
        yield running


async def test_repository_is_listed_with_what_fits(running: Running, hub: HubServer) -> None:
    both = await asyncio.gather(
        *(asked(running, f"/admin/hub?model={name}") for name in ("me/tiny-GGUF", "Me/Tiny-gguf"))
    )
    assert both[0] == both[1]
    assert len([one for one in hub.asked if one.path.startswith("/api/")]) == 1
    config = running.gateway.settings.models_file.parents[1] / "conf/gateway.yaml"
    # In a process of its own: the hub's client reads HF_ENDPOINT once, when it is imported.
    command: list[Any] = [COMMAND, "pull", "me/tiny-GGUF", "--json", "--config", config]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    assert both[0] == json.loads(done.stdout)
    (small, large) = both[0]["quantisations"]
    assert (small["name"], small["size"], small["fits"]) == ("Q4_0", 100, "yes")
    assert (large["recommended"], small["recommended"]) in ((True, False), (False, True))
    assert small["why"].startswith("needs about 512 MiB, and there is ")


async def test_missing_or_gated_repository_is_told(running: Running, hub: HubServer) -> None:
    async def refused(query: str) -> tuple[int, str]:
        status, answer = await running.json("GET", f"/admin/hub{query}")
        return status, answer["error"]["code"]

    assert await refused("") == (400, "invalid_request")
    assert await refused("?model=nonsense") == (400, "invalid_request")
    assert await refused("?model=me/tiny-GGUF&revision=-x") == (400, "invalid_request")
    assert await refused("?model=me/nowhere") == (404, "not_found")
    # The next time it is asked again.
    hub.repos["me/nowhere"] = hub.repos["me/shut-GGUF"]
    shut = await asked(running, "/admin/hub?model=me/nowhere")
    assert (shut["gated"], shut["shut"]) == (True, True)


async def test_hub_is_refused_without_its_client(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    status, answer = await running.json("GET", "/admin/hub?model=me/tiny-GGUF")
    assert (status, answer["error"]["code"]) == (501, "hub_not_installed")
    status, answer = await running.json("POST", "/admin/pulls", json={"model": "me/tiny-GGUF"})
    assert (status, answer["error"]["code"]) == (501, "hub_not_installed")
    assert "llm-api-gateway[hub]" in answer["error"]["message"]
