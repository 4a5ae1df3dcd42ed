"""A gateway whose models run on other machines, through Ray's own processes."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.harness import FAKE, fake_model
from tests.raylets.conftest import LONG, Cluster, Command

pytestmark = pytest.mark.timeout(400)


async def serve(cluster: Cluster, models: dict[str, Any], port: int) -> Command:
    """A gateway beside the head."""
    folder = cluster.folder / "head"
    (folder / "models.json").write_text(json.dumps(models))
    config = cluster.folder / "gateway.yaml"
    settings = {
        "port": port,
        "models_file": str(folder / "models.json"),
        "llama_server": str(FAKE),
        "auth": {"enabled": False},
        "cluster": {"address": cluster.address},
    }
    config.write_text(json.dumps(settings))
    return await cluster.command("head", "serve", "--config", str(config))


async def test_a_model_runs_on_a_node_and_leaves_it_when_that_is_drained(
    cluster: Cluster, tmp_path: Path, unused_tcp_port: int
) -> None:
    os.environ["LLM_GATEWAY_LLAMA_SERVER"] = str(FAKE)
    try:
        await cluster.head()
        await cluster.join("attic", "127.0.0.3")
        await cluster.join("cellar", "127.0.0.4")
    finally:
        del os.environ["LLM_GATEWAY_LLAMA_SERVER"]
    entry = {**fake_model(tmp_path), "memory": "64MiB", "nodes": ["attic", "cellar"]}
    await serve(cluster, {"m": entry}, unused_tcp_port)
    url = f"http://127.0.0.1:{unused_tcp_port}"
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with aiohttp.ClientSession() as session, asyncio.timeout(LONG):

        async def nodes() -> dict[str, Any]:
            try:
                async with session.get(f"{url}/admin/nodes") as answer:
                    return {one["name"]: one for one in (await answer.json())["nodes"]}
            except aiohttp.ClientError:  # it doesn't listen yet
                return {}

        while sum(one["up"] for one in (await nodes()).values()) < 2:
            await asyncio.sleep(0.2)
        async with session.post(f"{url}/v1/chat/completions", json=asked) as answer:
            assert answer.status == 200, await answer.text()
        (where,) = [name for name, one in (await nodes()).items() if one["models"]]
        async with session.post(f"{url}/admin/nodes/{where}/drain") as answer:
            assert answer.status == 200
        while (await nodes())[where]["models"]:
            await asyncio.sleep(0.2)
        async with session.post(f"{url}/v1/chat/completions", json=asked) as answer:
            assert answer.status == 200, await answer.text()
        assert not (await nodes())[where]["models"]
