"""Who is let in, when, and what the log says of who isn't."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import aiohttp
import pytest

from gateway.config.load import load_settings
from gateway.library import Library
from gateway.server import Gateway
from tests.harness import FAKE, MakeGateway, fake_model, project

PREFLIGHT = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_key_without_rights_is_named_in_the_log(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        assert running.gateway.ring is not None
        record, key = await running.gateway.ring.create("guest")
        caplog.set_level(logging.INFO, "gateway.access")
        assert (await running.json("GET", "/admin/keys", key=key))[0] == 403
    (line,) = [one.getMessage() for one in caplog.records if "/admin/keys" in one.getMessage()]
    assert f"key={record.id} " in line


async def test_only_who_brings_a_key_waits_until_keys_are_known(tmp_path: Path) -> None:
    config = project(tmp_path, {"m": fake_model(tmp_path)}, port=0, llama_server=str(FAKE))
    settings = load_settings(config, environ={}).settings
    library = Library.open(settings.models_file)
    async with (
        Gateway(settings, library, config) as gateway,
        aiohttp.ClientSession(gateway.urls[0]) as session,
        aiohttp.ClientSession(
            "http://gateway", connector=aiohttp.UnixConnector(gateway.runtime.control_socket)
        ) as owner,
    ):
        async with session.get("/health") as answer:
            assert answer.status in (200, 503)
        async with session.options("/v1/chat/completions", headers=PREFLIGHT) as answer:
            assert answer.status == 204
        for ask in (session.get("/v1/models"), session.post("/v1/chat/completions", json=CHAT)):
            async with ask as answer:
                assert answer.status == 401
        async with session.get("/admin/keys", headers={"Host": "evil.example"}) as answer:
            assert answer.status == 421
        async with owner.get("/admin/models") as answer:
            assert answer.status == 200

        headers = {"Authorization": "Bearer sk-wrong"}
        waiting = [
            asyncio.ensure_future(ask)  # noqa: TID251
            for ask in (
                session.get("/v1/models", headers=headers),
                session.post("/v1/chat/completions", json=CHAT, headers=headers),
            )
        ]
        done, _ = await asyncio.wait(waiting, timeout=0.2)
        assert not done
        await gateway.open_keys()
        assert [answer.status for answer in await asyncio.gather(*waiting)] == [401, 401]
