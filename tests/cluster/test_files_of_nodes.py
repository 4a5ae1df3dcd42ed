"""The files of nodes, as a gateway knows of them and has them given to other nodes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.cluster.ca import Authority, server_name
from gateway.cluster.copying import CopyProgress
from gateway.cluster.node_files import NodeFiles
from tests.cluster.machines import Machines, gateway_of, up
from tests.scripted import Box


@pytest.fixture
async def machines(folder: Path) -> AsyncIterator[Machines]:
    made = Machines(Box(folder))
    yield made
    await made.close()


async def test_a_gateway_knows_the_files_of_a_node_and_hears_of_new_ones(
    machines: Machines, tmp_path: Path
) -> None:
    storage = tmp_path / "attic"
    storage.mkdir()
    (storage / "one.gguf").write_bytes(b"GGUF" + bytes(96))
    await machines.start("attic", llm_storage=storage)
    async with gateway_of(machines, folder=tmp_path / "cluster") as (_, cluster):
        await up(cluster, "attic")
        (node,) = cluster.nodes
        assert node.files == {"one.gguf": 100}
        heard = asyncio.Event()
        cluster.changed = heard.set
        (storage / "two.gguf").write_bytes(b"GGUF" + bytes(196))
        async with asyncio.timeout(10):
            while len(node.files) < 2:
                await heard.wait()
                heard.clear()
        assert node.files == {"one.gguf": 100, "two.gguf": 200}


async def test_what_a_node_gives_another_of_its_gateway_fetches(
    machines: Machines, tmp_path: Path
) -> None:
    attic, cellar, own = (tmp_path / name for name in ("attic", "cellar", "cluster"))
    attic.mkdir()
    content = b"GGUF" + os.urandom(100_000)
    (attic / "one.gguf").write_bytes(content)
    spec = machines.box.spec("a", model="one.gguf")
    await machines.start("attic", llm_storage=attic)
    files = NodeFiles("cellar", "127.0.0.1", cellar, cellar, lambda: dict(os.environ), lambda: None)
    told: list[CopyProgress] = []
    async with gateway_of(machines, folder=own) as (_, cluster):
        await up(cluster, "attic")
        (node,) = cluster.nodes
        gateway = (own / "id").read_text()
        assert await node.ask("give", gateway, spec, ["two.gguf"]) is None
        offer = await node.ask("give", gateway, spec, ["one.gguf"])
        mine = Authority.open(own).issue(server_name("cellar"), server=True, client=True)
        await files.fetch(spec, [offer], mine, told.append)
        await node.ask("take_back", offer.id)
    assert (cellar / "one.gguf").read_bytes() == content
    assert told[-1].total == len(content)
