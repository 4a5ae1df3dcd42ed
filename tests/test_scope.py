"""A right is declared in one place, and named where it is needed: all else follows from that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gateway

PACKAGE = Path(gateway.__file__).parent
ROOT = Path(__file__).parent.parent

#: Run against a copy of the package that has one more scope, for one route.
CHECKS = """
import asyncio
from pathlib import Path

import aiohttp
from tests.harness import FAKE, fake_model, project

from gateway.config.load import load_settings
from gateway.library import Library
from gateway.server import Gateway


async def check(folder: Path) -> None:
    config = project(folder, {"m": fake_model(folder)}, port=0, llama_server=str(FAKE))
    settings = load_settings(config, environ={}).settings
    async with (
        Gateway(settings, Library.open(settings.models_file), config) as gateway,
        aiohttp.ClientSession(gateway.urls[0]) as session,
    ):
        await gateway.open_keys()
        ring = await gateway.gate.wait()
        record, admin = await ring.create("admin", admin=True)
        _, guest = await ring.create("guest")

        async with session.get("/openapi.json") as answer:
            document = await answer.json()
        assert document["paths"]["/admin/requests"]["get"]["x-scope"] == "audit"
        assert "an admin key (`audit`)" in document["info"]["description"]

        async with session.get("/admin/requests", headers={"X-Api-Key": guest}) as answer:
            assert answer.status == 403
            assert (await answer.json())["error"]["code"] == "admin_key_required"
        follow = "/admin/requests?follow=true"
        async with session.get(follow, headers={"X-Api-Key": admin}) as answer:
            assert answer.status == 200
            await answer.content.readline()
            await ring.change(record.id, {"admin": False}, force=True)
            assert b"admin_key_required" in await answer.content.read()


asyncio.run(check(Path("project")))
"""


def with_instead(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert text.count(old) == 1, f"{old!r} is not in {file.name} once: adapt this test"
    file.write_text(text.replace(old, new), "utf-8")


@pytest.mark.slow
def test_new_scope_touches_its_declaration_and_the_route_that_needs_it(tmp_path: Path) -> None:
    copy = tmp_path / "gateway"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    with_instead(
        copy / "scope.py",
        '    ADMIN = "admin", "an admin key"\n',
        '    ADMIN = "admin", "an admin key"\n    AUDIT = "audit", "an admin key"\n',
    )
    with_instead(
        copy / "api" / "admin_requests.py",
        "self.list_requests, Scope.ADMIN",
        "self.list_requests, Scope.AUDIT",
    )
    (tmp_path / "project").mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", CHECKS],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, Path(__file__).parent))),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
