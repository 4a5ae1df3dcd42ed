"""The routes of the system being replaced that stream or that the demo test doesn't reach."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.api.relayed import JSON_ROUTES
from gateway.pipeline import events
from gateway.tasks import spawn
from tests import scripted
from tests.harness import MakeGateway, Running, fake_model


async def event(response: aiohttp.ClientResponse) -> tuple[str, Any]:
    """The next Server-Sent Event: its type and its data."""
    kind, data = "message", ""
    async with asyncio.timeout(10):
        while line := (await response.content.readline()).decode():
            line = line.rstrip("\r\n")
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                data += line[6:]
            elif not line and data:
                return kind, json.loads(data) if data[0] in "{[" else data
    raise AssertionError("the stream ended")


async def until(response: aiohttp.ClientResponse, status: str) -> Any:
    while True:
        kind, data = await event(response)
        assert kind == "message"
        if data["status"] == status:
            return data


async def test_status_tells_each_change_as_an_event(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {
        "m": fake_model(tmp_path, start_delay=0.2, chunks=40, pause=0.05),
        "bad": fake_model(tmp_path, exit=1),
    }
    async with (
        make_gateway(models) as running,
        running.request("GET", f"/status?authKey={running.key}", key=None) as response,
    ):
        assert response.headers["Content-Type"].startswith("text/event-stream")
        kind, data = await event(response)
        assert kind == "message"
        assert data["status"] == "Terminated"
        assert data["models"] == []
        async with running.request("POST", "/loadModel", json={"model": "m"}) as answer:
            assert answer.status == 200
        assert "m" in (await until(response, "Loading"))["info"]
        assert (await until(response, "Idle"))["models"] == ["m"]
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with running.request("POST", "/chat/completions", json=body) as stream:
            assert stream.status == 200
            await until(response, "Processing")
        await until(response, "Idle")
        assert (await running.json("GET", "/unloadModel"))[0] == 200
        await until(response, "Terminated")
        assert (await running.json("POST", "/loadModel", json={"model": "bad"}))[0] == 500
        assert "status 1" in (await until(response, "Error"))["info"]
        # A gateway that stops ends the stream cleanly.
        running.gateway.lifecycle.stopping.set()
        async with asyncio.timeout(5):
            await response.content.read()


async def test_a_broken_models_json_is_told_everywhere(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        assert running.gateway.ring is not None
        _, chat = await running.gateway.ring.create("chat")
        file = running.gateway.settings.models_file
        good = file.read_text()
        async with (
            running.request("GET", "/status") as for_admins,
            running.request("GET", "/status", key=chat) as for_all,
        ):
            for stream in (for_admins, for_all):
                assert (await event(stream))[1]["models_file_error"] is None
            file.write_text(good.replace("params", "parms"))  # seen without anybody asking
            async with asyncio.timeout(10):
                reason = (await event(for_admins))[1]["models_file_error"]
                note = (await event(for_all))[1]["models_file_error"]
            assert f"{file}: m.parms: unknown key" in reason
            assert note.startswith("models.json is broken: the last good one stays in use")
            assert await running.json("GET", "/ready", key=None) == (
                200,
                {"status": "ready", "note": note},
            )
            for path in ("/admin/status", "/admin/models"):
                assert (await running.json("GET", path))[1]["models_file_error"] == reason
            file.write_text(good)
            async with asyncio.timeout(10):
                for stream in (for_admins, for_all):
                    assert (await event(stream))[1]["models_file_error"] is None
            assert await running.json("GET", "/ready", key=None) == (200, {"status": "ready"})


async def test_status_tells_the_queue_and_the_load(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PAUSE", 0.4)
    async with (
        make_gateway({"m": fake_model(tmp_path, start_delay=2)}) as running,
        running.request("GET", "/status") as response,
    ):
        began = time.monotonic()
        asked = [spawn(running.chat("m"), name="a client") for _ in range(3)]
        seen = [await until(response, "Loading")]
        while (data := (await event(response))[1])["status"] == "Loading":
            seen.append(data)
        assert 3 <= len(seen) <= 2 + (time.monotonic() - began) / 0.4
        (waiting,) = seen[-1]["waiting"]
        seconds = waiting["seconds"]
        assert seconds >= 1
        assert seen[-1]["info"] == f"Loading m ({seconds} s); waiting: 3 for m"
        assert (waiting["model"], waiting["stage"], waiting["queued"]) == ("m", "starting", 3)
        assert waiting["longest_wait"] >= seconds
        assert [one["position"] for one in waiting["queue"]] == [1, 2, 3]
        waits = [one["seconds"] for one in waiting["queue"]]
        assert waits == sorted(waits, reverse=True)
        assert waits[0] == waiting["longest_wait"]
        assert [answer[0] for answer in await asyncio.gather(*asked)] == [200, 200, 200]
        assert (await until(response, "Idle"))["waiting"] == []


async def test_status_tells_only_of_models_that_a_key_may_use(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"m": fake_model(tmp_path, chunks=2), "n": fake_model(tmp_path, chunks=2)}
    async with make_gateway(models) as running:
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create("one", models=["n"])
        for name in models:
            body = {"model": name}
            assert (await running.json("POST", "/loadModel", json=body))[0] == 200
            async with (
                running.request("GET", "/status", key=key) as limited,
                running.request("GET", "/status") as full,
            ):
                told, everything = (await event(limited))[1], (await event(full))[1]
            assert everything["active"] == name
            assert told["active"] == (None if name == "m" else "n")
            assert told["models"] == [one for one in everything["models"] if one == "n"]
            assert told["status"] == ("Terminated" if name == "m" else "Idle")
            assert "m" not in told["info"].split()


async def test_status_is_no_flood(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PAUSE", 60.0)
    async with (
        make_gateway({"m": fake_model(tmp_path, never_healthy=1)}) as running,
        running.request("GET", "/status") as response,
    ):
        scheduler = running.gateway.scheduler
        await until(response, "Terminated")
        for count in range(1, 9):
            spawn(running.chat("m"), name="a client")
            await scripted.until(scheduler, lambda: scheduler.status()[0].queued == count)  # noqa: B023
        await scheduler.unload("m")
        told = []
        while (data := (await event(response))[1])["status"] != "Terminated":
            told.append((data["status"], data["waiting"][0]["stage"]))
        assert len(told) == len(set(told)) <= 4  # stages, and not one for each client


async def ask(running: Running, query: str) -> tuple[int, Any]:
    return await running.json("GET", f"/chat/ask?{query}")


async def test_chat_ask_answers_whole_and_as_events(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"m": fake_model(tmp_path, chunks=3), "dying": fake_model(tmp_path, die_after=1)}
    async with make_gateway(models) as running:
        assert (await ask(running, "question=x"))[0] == 404  # nothing is loaded
        assert (await ask(running, ""))[0] == 400
        assert (await running.json("POST", "/loadModel", json={"model": "m"}))[0] == 200
        expected = {"question": "what is it?", "response": "word0 word1 word2 "}
        assert await ask(running, "question=what%20is%20it%3F") == (200, expected)
        async with running.request("GET", "/chat/ask?question=x&stream=true") as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            events = [await event(response) for _ in range(4)]
        assert events[:3] == [("message", {"response": f"word{n} "}) for n in range(3)]
        assert events[3][0] == "end"
        status, _ = await ask(running, "question=x&model=dying")
        assert status == 502
        assert running.gateway.scheduler.in_flight == 0


async def test_a_question_is_kept_alive_while_its_model_loads(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {
        "slow": fake_model(tmp_path, start_delay=1),
        "never": fake_model(tmp_path, never_healthy=1),
        "dying": fake_model(tmp_path, die_after=2),
    }

    async def streamed(running: Running, model: str) -> tuple[int, bytes]:
        query = f"/chat/ask?question=x&stream=true&model={model}"
        got = b""
        async with running.request("GET", query) as response:
            with contextlib.suppress(aiohttp.ClientPayloadError):
                while piece := await response.content.readany():
                    got += piece
            return response.status, got

    limits = {"heartbeat": "0.2s", "load_timeout": "2s"}
    async with make_gateway(models, limits=limits) as running:
        status, got = await streamed(running, "slow")
        assert status == 200
        assert got.count(b": ping\n") >= 2
        assert got.endswith(b'data: {"response":"word4 "}\n\nevent: end\ndata: end\n\n')
        status, got = await streamed(running, "never")  # it is too late for a plain error
        assert (status, got.count(b"event: end")) == (200, 0)
        error = json.loads(got.partition(b"event: error\ndata: ")[2])["error"]
        assert error["code"] == "model_load_failed"
        assert "made no progress" in error["message"]
        status, got = await streamed(running, "dying")
        assert (status, got.count(b'data: {"response"'), got.count(b"event: end")) == (200, 2, 0)
        assert json.loads(got.partition(b"event: error\ndata: ")[2])["error"]["message"]
    bad = {"bad": fake_model(tmp_path, exit=3)}
    async with make_gateway(bad, folder="second") as running:
        status, got = await streamed(running, "bad")
        assert (status, json.loads(got)["error"]["code"]) == (500, "model_load_failed")


@pytest.mark.parametrize("path", ["/status", "/models/sse", "/admin/models/m/log"])
async def test_streams_without_an_end_are_kept_alive(
    make_gateway: MakeGateway, tmp_path: Path, path: str
) -> None:
    async with (
        make_gateway({"m": fake_model(tmp_path)}, limits={"heartbeat": "0.2s"}) as running,
        running.request("GET", path) as response,
    ):
        assert response.status == 200
        got = b""
        async with asyncio.timeout(10):
            while got.count(b": ping\n") < 3:
                got += await response.content.readany()


async def test_a_question_whose_backend_dies_is_asked_again(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"m": fake_model(tmp_path, chunks=2, die_once=tmp_path / "died")}
    async with make_gateway(models) as running:
        expected = {"question": "hi", "response": "word0 word1 "}
        assert await ask(running, "question=hi&model=m") == (200, expected)
        status = running.gateway.scheduler.status()[0]
        assert (status.starts, status.deaths, status.in_flight) == (2, 1, 0)


async def test_load_model_waits_until_the_model_is_ready(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    models = {"a/b": fake_model(tmp_path), "c": fake_model(tmp_path)}
    async with make_gateway(models, scheduler={"max_loaded": 1}) as running:
        for body, expected in (({}, 400), ({"model": 7}, 400), ({"model": "nope"}, 404)):
            with subtests.test(f"{body!r:.80}"):
                assert (await running.json("POST", "/loadModel", json=body))[0] == expected
        assert (await running.json("POST", "/loadModel", json={"model": "a/b"}))[0] == 200
        assert await running.json("GET", "/models?loaded=true") == (200, ["a/b"])
        assert (await running.json("POST", "/loadModel", json={"model": "c"}))[0] == 200
        assert await running.json("GET", "/models?loaded=true") == (200, ["c"])
        # One reader would take the query's, another the body's.
        two = "/unloadModel?model=a/b"
        status, answer = await running.json("POST", two, json={"model": "c"})
        assert (status, answer["error"]["param"]) == (400, "model")
        assert await running.json("GET", "/models?loaded=true") == (200, ["c"])
        for body in ({}, {"model": "a/b"}):
            assert (await running.json("POST", two, json=body))[0] == 200
        status, answer = await running.json("POST", "/unloadModel?model=c")
        assert (status, answer) == (200, {"message": "Model unloaded."})
        assert await running.json("GET", "/models?loaded=true") == (200, [])
        assert (await running.json("GET", "/v1/models/a/b"))[0] == 200
        assert (await running.json("GET", "/v1/models/a%2Fb"))[0] == 200
        assert (await running.json("GET", "/v1/models/nope"))[0] == 404


OF_LLM_API = ("/loadModel", "/unloadModel", "/models/load", "/models/unload")


async def test_model_that_is_no_text_is_refused(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Also 0 and [], which mean nothing in Python, but nothing that a client may mean."""
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        await running.chat("m")
        for path in (*OF_LLM_API, *JSON_ROUTES):
            for model in (7, 0, 1.5, False, [], ["m"], {}, {"name": "m"}):
                with subtests.test(f"{model!r:.80}"):
                    messages = [{"role": "user", "content": "hi"}]
                    body = {"model": model, "messages": messages, "input": "x", "prompt": "x"}
                    status, answer = await running.json("POST", path, json=body)
                    assert status == 400, (path, model)
                    assert "`model` must be a text" in answer["error"]["message"]
        assert running.gateway.scheduler.loaded() == ["m"]  # nor was anything unloaded


async def test_log_of_a_model_is_served(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"a/b": fake_model(tmp_path)}) as running:
        assert (await running.json("GET", "/admin/models/nope/log"))[0] == 404
        async with running.request("GET", "/admin/models/a/b/log") as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            assert (await running.json("POST", "/loadModel", json={"model": "a/b"}))[0] == 200
            async with asyncio.timeout(10):
                while b"fake llama-server starts" not in await response.content.readline():
                    pass
        status, answer = await running.json("GET", "/admin/models/a/b/log?follow=false")
        assert status == 200
        assert "fake llama-server starts" in answer["lines"]


async def test_models_json_is_watched(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        taken = asyncio.Event()
        apply = running.gateway.library.changed

        def changed(catalog: Any) -> None:
            apply(catalog)
            taken.set()

        running.gateway.library.changed = changed
        file = running.gateway.settings.models_file
        new = file.with_suffix(".new")
        new.write_text(file.read_text().replace('"m"', '"n"'))
        async with asyncio.timeout(10):
            # The watch may begin a moment after the gateway answers.
            while not taken.is_set():
                new.touch()
                new.rename(file)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(taken.wait(), 3)
                new.write_text(file.read_text())
        assert [status.name for status in running.gateway.scheduler.status()] == ["n"]
