"""GET /clients: the lines of `connect` over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.clients import CLIENTS, KEY
from gateway.tls import self_signed
from tests.harness import MakeGateway, fake_model

pytestmark = pytest.mark.slow


async def test_every_client_gets_lines_with_the_key_that_asks(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {
        "a": fake_model(tmp_path, personalities={"poet": "You rhyme."}),
        "b": fake_model(tmp_path),
    }
    async with make_gateway(models) as running:
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create("narrow", models=["b"])
        status, told = await running.json("GET", "/clients", key=key)
        assert status == 200
        assert told["model"] == "b"  # the only one of that key
        assert told["base_url"] == f"{running.url}/v1"
        words = [one["client"] for one in told["clients"]]
        assert {*words} == {*CLIENTS, "curl"}
        assert words[:3] == ["openai-python", "openai-node", "curl"]
        assert key not in str(told)
        assert f"${KEY}" in told["clients"][0]["parts"][0]["text"]
        path = "/clients?model=a:poet&key=true&url=https://box.example:8443"
        status, told = await running.json("GET", path)
        for one in told["clients"]:
            text = "".join(part["text"] for part in one["parts"])
            assert running.key in text, one["client"]
            assert "https://box.example:8443" in text
            assert "a:poet" in text
        status, told = await running.json("GET", "/clients?key=YOUR_KEY")
        for one in told["clients"]:
            text = "".join(part["text"] for part in one["parts"])
            assert "YOUR_KEY" in text, one["client"]
            assert running.key not in text
        async with running.request("GET", "/clients?key=true") as response:
            assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("model=none", 404, "model"),
        ("url=https://box/$(id)", 400, "url"),
        ("url=javascript:x", 400, "url"),
        ("key=maybe", 400, "key"),
        ("key=llmgw_a_key_in_an_address", 400, "key"),
    ],
)
async def test_wrong_question_for_lines_is_refused_by_its_name(
    make_gateway: MakeGateway, tmp_path: Path, query: str, status: int, param: str
) -> None:
    async with make_gateway({"a": fake_model(tmp_path)}) as running:
        found, told = await running.json("GET", f"/clients?{query}")
    assert (found, told["error"]["param"]) == (status, param)


@contextlib.asynccontextmanager
async def certified(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[tuple[Any, str]]:
    """A gateway with a certificate of an authority of its own: how it is asked, and the key."""
    made = self_signed(["127.0.0.1"], tmp_path / "ssl")
    whole = tmp_path / "ssl/whole.pem"  # as some make it, with the key in it
    whole.write_bytes(made.chain.read_bytes() + made.private_key.read_bytes())
    tls = {
        "enabled": True,
        "private_key": str(made.private_key),
        "certificate": str(made.certificate),
        "ca_chain": str(whole),
    }
    models = {"m": fake_model(tmp_path)}
    async with make_gateway(models, tls=tls) as running:
        trusts = ssl.create_default_context(cafile=made.chain)

        async def asked(path: str) -> Any:
            status, told = await running.json("GET", path, ssl=trusts)
            assert status == 200, told
            return told

        yield asked, running.key


async def run(script: str, home: Path, *command: str) -> str:
    """What a shell, in which nothing of this test's is set, says to ``script``."""
    environ = {"HOME": str(home), "PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        *("sh", "-ec", script, *command),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_lines_make_a_client_trust_the_local_authority(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    home = tmp_path / "a home"
    home.mkdir()
    async with certified(make_gateway, tmp_path) as (asked, key):
        told = await asked("/clients?key=true")
        by_name = {one["client"]: one for one in told["clients"]}
        for one in told["clients"]:
            authority, *parts = one["parts"]
            assert authority["where"] == "~/llm-gateway-ca.crt"
            assert "PRIVATE KEY" not in authority["text"]
            text = "".join(part["text"] for part in parts) + "".join(one["notes"])
            assert "llm-gateway-ca.crt" in text or "authority" in one["notes"][1], one["client"]
        (home / "llm-gateway-ca.crt").write_text(authority["text"])
        _, python, program = by_name["openai-python"]["parts"]
        script = f'{python["text"]}\nexec "$0" -c "$1"'
        assert await run(script, home, sys.executable, program["text"])
        if shutil.which("curl") is not None:
            line = by_name["curl"]["parts"][1]["text"]
            assert "choices" in await run(line.replace("curl ", "curl -fsS ", 1), home)
        # Whoever comes by another way has another certificate before him.
        other = await asked("/clients?url=http://box.example")
        assert "llm-gateway-ca" not in str(other)
        assert key not in str(other)
