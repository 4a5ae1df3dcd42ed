"""GET /clients: the lines of `connect` over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import MakeGateway, fake_model

from gateway.clients import CLIENTS, KEY


async def test_lines_for_every_client_with_the_key_that_asks(
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
async def test_what_is_refused(
    make_gateway: MakeGateway, tmp_path: Path, query: str, status: int, param: str
) -> None:
    async with make_gateway({"a": fake_model(tmp_path)}) as running:
        found, told = await running.json("GET", f"/clients?{query}")
    assert (found, told["error"]["param"]) == (status, param)
