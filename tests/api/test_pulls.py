"""Models fetched over HTTP, from a hub on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.models.paths import resolve_model_path
from tests.harness import DEMO_GGUF, MakeGateway, Running, alive, wait_until
from tests.hub_server import HubServer, Repo, tiny_hub

pytestmark = pytest.mark.slow

NAME = "me/tiny-GGUF"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with tiny_hub(NAME, tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "LLMs"


async def begun(running: Running, model: str, **fields: Any) -> str:
    status, told = await running.json("POST", "/admin/pulls", json={"model": model, **fields})
    assert status == 202, told
    assert told["model"] == model
    found: str = told["id"]
    return found


async def events(running: Running) -> AsyncIterator[list[dict[str, Any]]]:
    """What each event shows."""
    headers = {"Accept": "text/event-stream"}
    async with running.request("GET", "/admin/pulls", headers=headers) as response:
        assert response.content_type == "text/event-stream"
        async for line in response.content:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])["pulls"]


async def seen(running: Running, id_: str, *stages: str) -> dict[str, Any]:
    """The pull, as soon as it is in one of ``stages``."""
    async with asyncio.timeout(60):
        async for pulls in events(running):
            (pull,) = (one for one in pulls if one["id"] == id_)
            if pull["stage"] in stages:
                return dict(pull)
            assert pull["ended"] is None, pull
    raise AssertionError


async def test_a_model_is_fetched_and_answers(
    make_gateway: MakeGateway, server: HubServer, storage: Path, tmp_path: Path
) -> None:
    file = resolve_model_path(DEMO_GGUF, tmp_path)
    server.repos["me/SmolLM2-GGUF"] = Repo({file.name: file.read_bytes()})
    async with make_gateway({}, llama_server="auto", llm_storage=str(storage)) as running:
        id_ = await begun(running, "me/SmolLM2-GGUF:Q4_1", name="small")
        pull = await seen(running, id_, "done")
        assert pull["name"] == "small"
        assert pull["bytes"] == pull["total"] == file.stat().st_size
        status, answer = await running.chat("small", max_tokens=4)
        assert status == 200, answer
        assert answer["choices"][0]["message"]["content"]
        listed = await running.json("GET", "/admin/pulls")
        assert listed == (200, {"pulls": [pull]})
        assert await running.json("DELETE", f"/admin/pulls/{id_}") == (200, pull)
        assert await running.json("GET", "/admin/pulls") == (200, {"pulls": []})


async def test_one_that_is_ended_goes_on_later(
    make_gateway: MakeGateway, server: HubServer, storage: Path
) -> None:
    data = random.Random(1).randbytes(3_000_000)
    server.repos[NAME] = Repo({"big-Q4_0.gguf": data})
    server.holds = [1_000_000, 500_000, 100_000]
    async with make_gateway({}, llm_storage=str(storage)) as running:
        id_ = await begun(running, NAME, entry=False)
        pull = await seen(running, id_, "downloading")
        assert (pull["quantisation"], pull["total"]) == ("Q4_0", len(data))
        assert await begun(running, NAME, entry=False) == id_  # it runs already
        part = await grown(storage, 1_000_000)
        status, ended = await running.json("DELETE", f"/admin/pulls/{id_}")
        assert (status, ended["stage"]) == (200, "ended")
        assert list((storage / NAME).iterdir()) == [part]

        before, id_ = id_, await begun(running, NAME, entry=False)
        assert await grown(storage, 1_500_000) == part
        # Of the one that has ended: what the other goes on with is not taken from under it.
        status, _ = await running.json("DELETE", f"/admin/pulls/{before}?discard=true")
        assert (status, list((storage / NAME).iterdir())) == (200, [part])
        status, ended = await running.json("DELETE", f"/admin/pulls/{id_}?discard=true")
        assert (status, ended["bytes"]) == (200, 0)
        assert list((storage / NAME).iterdir()) == []

        # The last one ends with the gateway.
        await begun(running, NAME, entry=False)
        await grown(storage, 100_000)
        pids = children()
        assert pids
    assert not [pid for pid in pids if alive(pid)]
    assert server.starts() == [0, 1_000_000, 0]
    assert part.stat().st_size == 100_000


async def grown(storage: Path, size: int) -> Path:
    """The file that is on its way, as soon as it is so large."""

    def found() -> list[Path]:
        parts = (storage / NAME).glob(".*.part")
        return [part for part in parts if part.stat().st_size == size]

    await asyncio.to_thread(wait_until, lambda: bool(found()), 30, f"{size} bytes")
    return found()[0]


def children() -> list[int]:
    """Processes of this one that fetch."""
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [
        int(pid)
        for pid in found
        if "pull_process" in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    ]


async def test_what_goes_wrong_is_in_the_list(
    make_gateway: MakeGateway,
    server: HubServer,
    storage: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.repos[NAME].gated = "auto"
    async with make_gateway({}, llm_storage=str(storage)) as running:
        gated = await seen(running, await begun(running, NAME), "failed")
        unknown = await seen(running, await begun(running, "me/unknown"), "failed")
        quantisation = await seen(running, await begun(running, f"{NAME}:Q9"), "failed")
    assert gated["error"]["code"] == "gated"
    assert "has no access" in gated["error"]["message"]
    assert unknown["error"]["code"] in ("not_found", "wrong_token")
    assert "has no 'Q9'" in quantisation["error"]["message"]
    assert "hf_secret" not in json.dumps([gated, unknown, quantisation]) + caplog.text
    assert not list(storage.rglob("*.part"))


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, "`model` is missing"),
        ({"model": "../../etc:passwd"}, 400, "must be OWNER/REPO"),
        ({"model": "/etc/passwd"}, 400, "must be OWNER/REPO"),
        ({"model": "https://example.com/me/repo"}, 400, "must be OWNER/REPO"),
        ({"model": 5}, 400, "`model` must be a text"),
        ({"model": NAME, "entry": "no"}, 400, "`entry` must be true or false"),
        ({"model": NAME, "folder": "/tmp"}, 400, "unknown field 'folder'; allowed: model, rev"),
        ({"model": NAME, "revision": "../x"}, 400, "must be a branch"),
        ({"model": NAME, "name": "mine"}, 400, "there is a model 'mine' already"),
        ({"model": NAME, "name": ""}, 400, "can't be the name"),
    ],
)
async def test_wrong_reference_to_a_model_is_refused(
    make_gateway: MakeGateway,
    server: HubServer,
    body: dict[str, Any],
    status: int,
    says: str,
) -> None:
    async with make_gateway({"mine": {"url": "http://127.0.0.1:9"}}) as running:
        code, answer = await running.json("POST", "/admin/pulls", json=body)
        assert (code, says in answer["error"]["message"]) == (status, True), answer
        assert await running.json("GET", "/admin/pulls") == (200, {"pulls": []})
    assert server.asked == []


async def test_only_administrators_may_pull(
    make_gateway: MakeGateway, server: HubServer, subtests: pytest.Subtests
) -> None:
    async with make_gateway({}) as running:
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create("user", "")
        for method, path in (
            ("GET", "/admin/pulls"),
            ("POST", "/admin/pulls"),
            ("DELETE", "/admin/pulls/x"),
        ):
            with subtests.test(f"{method!r:.80}"):
                status, _ = await running.json(method, path, key=key, json={"model": NAME})
                assert status == 403
                assert (await running.json(method, path, key=None))[0] == 401
        assert (await running.json("DELETE", "/admin/pulls/x"))[0] == 404


async def test_pull_is_refused_where_models_json_cannot_be_written(
    make_gateway: MakeGateway, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_gateway({}) as running:
        file = running.gateway.settings.models_file
        may = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: path != file and may(path, mode))
        status, answer = await running.json("POST", "/admin/pulls", json={"model": NAME})
        assert (status, answer["error"]["code"]) == (403, "not_writable")
        monkeypatch.undo()
        file.write_text("{")
        status, answer = await running.json("POST", "/admin/pulls", json={"model": NAME})
        assert (status, answer["error"]["code"]) == (500, "models_file_broken")


async def test_few_pulls_run_at_once_and_few_wait(
    make_gateway: MakeGateway, server: HubServer, storage: Path
) -> None:
    server.holds = [1000] * 20
    async with make_gateway({}, llm_storage=str(storage)) as running:
        ids = [await begun(running, f"me/tiny{n}") for n in range(16)]
        status, answer = await running.json("POST", "/admin/pulls", json={"model": "me/more"})
        assert (status, answer["error"]["code"]) == (503, "unavailable")
        assert len(children()) <= 2
        for id_ in reversed(ids):
            assert (await running.json("DELETE", f"/admin/pulls/{id_}"))[0] == 200
        _, answer = await running.json("GET", "/admin/pulls")
        assert {one["stage"] for one in answer["pulls"]} <= {"ended", "failed"}
        assert children() == []
