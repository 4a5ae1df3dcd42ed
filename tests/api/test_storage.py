"""GET /admin/storage: what `llm-gateway models scan --json` prints, from a running gateway."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.backends import scan
from gateway.cli import main
from gateway.tasks import spawn
from tests.harness import MakeGateway
from tests.tiny_model import write_tiny_model

#: Names that a stranger may give to a file.
STRANGE = (
    b"<script>alert(1)<script>.gguf",
    b"\xff\xfe.gguf",
    b"new\nline.gguf",
    b"\x1b[31mred.gguf",
    "größe.gguf".encode(),
    b"'; rm -rf ~; '.gguf",
)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "LLMs"
    folder.mkdir()
    for name in ("one.gguf", "two-F32.gguf"):
        write_tiny_model(folder / name)
    (folder / "page.gguf").write_bytes(b"<html>")
    return folder


async def test_it_is_what_the_command_prints(
    make_gateway: MakeGateway, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with make_gateway({}, llm_storage=str(storage)) as running:
        status, found = await running.json("GET", "/admin/storage")
        assert status == 200
        config = running.gateway.settings.models_file.parents[1] / "conf/gateway.yaml"
        capsys.readouterr()
        await asyncio.to_thread(main, ["models", "scan", "--json", "--config", str(config)])
        refused = [one.pop("refused") for one in found]
        assert found == json.loads(capsys.readouterr().out)
        assert refused == [None] * 3
        assert [one["file"] for one in found] == ["one.gguf", "page.gguf", "two-F32.gguf"]
        # What is proposed can be sent back, and isn't new any more.
        new = found[0]
        path = f"/admin/models/{new['name']}"
        assert (await running.json("PUT", path, json=new["entry"]))[0] == 201
        _, found = await running.json("GET", "/admin/storage")
        assert [one["file"] for one in found] == ["page.gguf", "two-F32.gguf"]


async def test_strange_file_names_are_listed_and_added(
    make_gateway: MakeGateway, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in STRANGE:
        write_tiny_model(Path(os.fsdecode(os.fsencode(storage) + b"/" + name)))
    async with make_gateway({}, llm_storage=str(storage)) as running:
        async with running.request("GET", "/admin/storage") as response:
            assert response.status == 200
            assert response.content_type == "application/json"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            found = json.loads((await response.read()).decode())
        assert len(found) == 3 + len(STRANGE)
        named = [one["name"] for one in found if one["name"] is not None]
        assert all(name.isprintable() for name in named)
        (bad,) = [one for one in found if "UTF-8" in (one["problem"] or "")]
        assert bad["entry"] is None
        for one in found:
            if one["entry"] is not None:
                entry = {"json": one["entry"]}
                status, answer = await running.json("PUT", "/admin/models/x", **entry)
                assert status in (200, 201), answer
        config = running.gateway.settings.models_file.parents[1] / "conf/gateway.yaml"
        await asyncio.to_thread(main, ["models", "scan", "--yes", "--config", str(config)])
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err
        assert "written to" in out
        _, left = await running.json("GET", "/admin/storage")
        assert {one["problem"] is None for one in left} == {False}


@pytest.mark.parametrize("allowed", [False, True])
async def test_what_put_refuses_is_told_before(
    make_gateway: MakeGateway, storage: Path, tmp_path: Path, *, allowed: bool
) -> None:
    write_tiny_model(tmp_path / "elsewhere.gguf")
    (storage / "linked.gguf").symlink_to(tmp_path / "elsewhere.gguf")
    settings = {"llm_storage": str(storage), "admin": {"process_settings": allowed}}
    async with make_gateway({}, **settings) as running:
        _, found = await running.json("GET", "/admin/storage")
        by_file = {one["file"]: one for one in found if one["entry"] is not None}
        assert {file for file, one in by_file.items() if one["refused"] is not None} == (
            set() if allowed else {"linked.gguf"}
        )
        for one in by_file.values():
            path = f"/admin/models/{one['name']}"
            status, answer = await running.json("PUT", path, json=one["entry"])
            assert (status != 201) is (one["refused"] is not None), answer
            if status != 201:
                assert answer["error"]["message"] == one["refused"]


async def test_storage_is_looked_at_once_at_a_time(
    make_gateway: MakeGateway, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    real = scan.scan_storage

    def counted(*arguments: Any) -> scan.Scanned:
        looks.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(scan, "scan_storage", counted)
    async with make_gateway({}, llm_storage=str(storage)) as running:
        answers = await asyncio.gather(*(running.json("GET", "/admin/storage") for _ in range(10)))
        assert len(looks) == 1
        assert all(answer == answers[0] for answer in answers)
        await running.json("GET", "/admin/storage")
        assert len(looks) == 2


async def test_missing_folder_and_missing_right_are_refused(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({}, llm_storage=str(tmp_path / "nowhere")) as running:
        status, answer = await running.json("GET", "/admin/storage")
        assert (status, answer["error"]["code"]) == (404, "no_storage")
        assert "nowhere" in answer["error"]["message"]  # an administrator is told where
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create("phone", "")
        assert (await running.json("GET", "/admin/storage", key=key))[0] == 403


async def test_many_files_keep_nobody_waiting(make_gateway: MakeGateway, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    write_tiny_model(folder / "model-0.gguf")
    data = (folder / "model-0.gguf").read_bytes()
    for number in range(1, 600):
        (folder / f"model-{number}.gguf").write_bytes(data)
    async with make_gateway({}, llm_storage=str(folder)) as running:
        asked = spawn(running.json("GET", "/admin/storage"), name="look")
        slowest = 0.0
        while not asked.done():
            sent = time.monotonic()
            async with running.request("GET", "/ping", key=None) as response:
                assert await response.text() == "pong"
            slowest = max(slowest, time.monotonic() - sent)
        status, found = await asked
    assert (status, len(found)) == (200, 600)
    assert len({one["name"] for one in found}) == 600
    assert slowest < 1
