"""Conversations saved on the disks of nodes, with real llama-servers: they outlive what they were
computed in, and are deleted when their key is, wherever the node may be meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.replicated import ReplicatedBackend
from gateway.cluster.cluster import Cluster
from tests.cluster.gateways import cluster_of
from tests.cluster.machines import Machines, up
from tests.conversations.test_real_llama_server import ask, cache, entry, words
from tests.conversations.test_real_private import TEMPLATE, guest_of
from tests.harness import MakeGateway, Running, eventually
from tests.scripted import Box
from tests.vulkan_build import REAL, RUNS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Messages = list[dict[str, str]]


@pytest.fixture
async def machines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machines]:
    made = Machines(Box(folder))
    monkeypatch.setattr("gateway.app.cluster_of", cluster_of(made))
    await start(made, "attic")
    yield made
    await made.close()


async def start(machines: Machines, name: str) -> None:
    await machines.start(name, llama_server="auto")


async def met(running: Running, *names: str) -> None:
    cluster = running.gateway.scheduler.environment.nodes
    assert isinstance(cluster, Cluster)
    await up(cluster, *names)


def on(*nodes: str, **more: Any) -> dict[str, Any]:
    return entry(nodes=[*nodes], **more)


def settings_in(folder: Path, **more: Any) -> dict[str, Any]:
    """Those of a gateway that is the same after another start."""
    return {"cluster": {}, "cache": cache(), "data_dir": str(folder / "data"), **more}


def saved_on(machines: Machines, name: str) -> list[Path]:
    """The whole files on the disk of a node, of all gateways."""
    return sorted((machines.box.folder / f"cache-{name}").glob("*/*.kv"))


def facts_of(folder: Path, name: str) -> list[Path]:
    """What a gateway knows of what is on the disk of a node."""
    return sorted((folder / f"data/cache/nodes/{name}").glob("*.json"))


async def known(folder: Path, name: str, count: int) -> None:
    """Wait until a gateway knows of so many conversations on the disk of a node."""
    await eventually(lambda: len(facts_of(folder, name)) == count, f"{count} are saved")


async def unload(running: Running) -> None:
    status, answer = await running.json("POST", "/unloadModel", json={"model": "a"})
    assert status == 200, answer


def question(seed: int) -> Messages:
    return [{"role": "user", "content": f"{seed} " + words(seed, 60)}]


async def say(running: Running, messages: Messages, key: str | None = None) -> tuple[int, int]:
    """Have ``messages`` go on by an answer and another question. Returns the tokens of the prompt,
    and how many of them were there.
    """
    text, prompt, cached = await ask(running, "a", messages, key=key)
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "Go on."}]
    return prompt, cached


async def told(running: Running) -> dict[str, Any]:
    status, answer = await running.json("GET", "/admin/cache")
    assert status == 200
    return dict(answer)


async def test_conversation_goes_on_after_a_swap_on_a_node(
    machines: Machines, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"a": on("attic"), "b": on("attic")}
    settings = settings_in(tmp_path, scheduler={"max_loaded": 1})
    async with make_gateway(models, **settings) as running:
        await met(running, "attic")
        messages = question(1)
        prompt, _ = await say(running, messages)
        await ask(running, "b", [{"role": "user", "content": "Hi"}])
        await known(tmp_path, "attic", 1)
        (file,) = saved_on(machines, "attic")
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        _, cached = await say(running, messages)
        assert cached >= prompt
        report = await told(running)
        (node,) = report["nodes"]
        assert (node["node"], node["problem"]) == ("attic", None)
        assert (node["conversations"], node["size"]) == (1, file.stat().st_size)
        assert node["budget"] > node["size"]
        assert (report["conversations"], report["size"]) == (0, 0), "nothing is on our own disk"
        (of_a,) = [one for one in report["models"] if one["model"] == "a"]
        assert (of_a["conversations"], of_a["hits"], of_a["tokens"]) == (1, 1, cached)
        _, answer = await running.json("GET", "/admin/models")
        (there,) = [one["prompt_cache"] for one in answer["models"] if one["name"] == "a"]
        assert (there["conversations"], there["nodes"]) == (1, {"attic": 1})
    assert len(saved_on(machines, "attic")) == 1, "only its longest"


async def test_conversation_outlives_its_gateway_and_its_node(
    machines: Machines, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models, messages = {"a": on("attic")}, question(2)
    async with make_gateway(models, **settings_in(tmp_path), folder="one") as running:
        await met(running, "attic")
        await say(running, messages)
        key = running.key
    assert len(saved_on(machines, "attic")) == 1, "it was saved at the end of the gateway"
    await machines.lose("attic")
    await start(machines, "attic")
    async with make_gateway(models, **settings_in(tmp_path), folder="two") as running:
        await met(running, "attic")
        prompt, cached = await say(running, messages, key)
        assert cached > prompt - 30
        before = facts_of(tmp_path, "attic")
        await unload(running)
        await eventually(lambda: before[0] not in facts_of(tmp_path, "attic"), "more is saved")
        await machines.lose("attic")
        await met(running)
        await start(machines, "attic")
        await met(running, "attic")
        prompt, cached = await say(running, messages, key)
        assert cached > prompt - 30, "its node was started anew"


async def test_what_a_key_had_goes_while_the_node_is_away(
    machines: Machines, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models, settings = {"a": on("attic")}, settings_in(tmp_path)
    async with make_gateway(models, **settings, folder="one") as running:
        await met(running, "attic")
        other = await guest_of(running)
        await say(running, question(3))
        await unload(running)
        await say(running, question(3), other)
        await unload(running)
        await known(tmp_path, "attic", 2)
        await machines.lose("attic")
        await met(running)
        ring = running.gateway.ring
        assert ring is not None
        (guest,) = [record for record in ring.records if record.name == "guest"]
        await ring.revoke(guest.id)
        await known(tmp_path, "attic", 1)
        assert len(saved_on(machines, "attic")) == 2, "nobody could tell the node"
        (node,) = (await told(running))["nodes"]
        assert node["conversations"] == 1
        assert node["problem"] is not None
    await start(machines, "attic")
    half = saved_on(machines, "attic")[0].parent / ("new-" + "0" * 24)
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    async with make_gateway(models, **settings, folder="two") as running:
        await met(running, "attic")
        await eventually(lambda: len(saved_on(machines, "attic")) == 1, "the node has heard of it")
        await eventually(lambda: not half.exists(), "and of what was broken off")
        _, answer = await running.json("DELETE", "/admin/cache?model=a")
        assert answer == {"removed": 1}
        assert saved_on(machines, "attic") == []
        assert facts_of(tmp_path, "attic") == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
async def test_damaged_file_of_a_node_is_not_read(
    machines: Machines, make_gateway: MakeGateway, tmp_path: Path, damage: str
) -> None:
    async with make_gateway({"a": on("attic")}, **settings_in(tmp_path)) as running:
        await met(running, "attic")
        messages = question(4)
        prompt, _ = await say(running, messages)
        await unload(running)
        await known(tmp_path, "attic", 1)
        (file,) = saved_on(machines, "attic")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(content if damage == "flipped" else content[:-1])
        _, cached = await say(running, messages)
        assert cached < prompt
        backend = running.gateway.scheduler.backend("a")
        assert backend is not None
        assert backend.deaths == 0
        assert not file.exists()


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Have room for nothing in ``folder``."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_node_whose_disk_is_full_goes_on_without(
    machines: Machines,
    make_gateway: MakeGateway,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await machines.lose("attic")
    disk = machines.box.folder / "cache-attic"
    with full_disk(disk):
        await start(machines, "attic")
        async with make_gateway({"a": on("attic")}, **settings_in(tmp_path)) as running:
            await met(running, "attic")
            messages = question(5)
            for _ in range(3):
                await say(running, messages)
                await unload(running)
            assert saved_on(machines, "attic") == []
            (node,) = (await told(running))["nodes"]
            assert "too small" in node["problem"]
        assert caplog.text.count("too small") == 1
        assert "crashed" not in caplog.text
        await machines.lose("attic")


async def test_gateways_have_nothing_in_common_on_a_node(
    machines: Machines, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"a": on("attic")}
    async with (
        make_gateway(models, **settings_in(tmp_path / "one"), folder="one") as one,
        make_gateway(models, **settings_in(tmp_path / "two"), folder="two") as two,
    ):
        for name, running in (("one", one), ("two", two)):
            await met(running, "attic")
            await say(running, question(6))
            await unload(running)
            await known(tmp_path / name, "attic", 1)
        folders = {file.parent for file in saved_on(machines, "attic")}
        assert len(folders) == 2
        _, answer = await one.json("DELETE", "/admin/cache")
        assert answer == {"removed": 1}
        assert {file.parent for file in saved_on(machines, "attic")} < folders
        prompt, cached = await say(two, question(6))
        assert cached > prompt - 30


async def test_conversation_finds_the_copy_whose_node_has_it_saved(
    machines: Machines, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    await start(machines, "cellar")
    models = {"a": on("attic", "cellar", replicas=2)}
    settings = settings_in(tmp_path)
    talks = {number: question(number) for number in range(10, 14)}
    async with make_gateway(models, **settings, folder="one") as running:
        await met(running, "attic", "cellar")
        await both(running)
        for messages in talks.values():
            await say(running, messages)
        key = running.key
        await unload(running)
    there = [len(saved_on(machines, name)) for name in ("attic", "cellar")]
    assert sum(there) == len(talks)
    assert min(there) > 0, "each node has some"
    async with make_gateway(models, **settings, folder="two") as running:
        await met(running, "attic", "cellar")
        await both(running)
        # Taken in turn, as they were before, the second one would miss its copy.
        for number in sorted(talks, key=lambda number: number % 2):
            messages = talks[number]
            prompt, cached = await say(running, messages, key)
            assert cached > prompt - 30 > TEMPLATE


async def both(running: Running) -> None:
    await running.json("POST", "/loadModel", json={"model": "a"})
    backend = running.gateway.scheduler.backend("a")
    assert isinstance(backend, ReplicatedBackend)
    await eventually(lambda: backend.copies == 2, "there are two copies")


@pytest.mark.skipif(not RUNS, reason="needs llama.cpp with RPC: llama-server-vulkan")
async def test_conversation_of_a_model_that_spans_nodes_goes_on_after_a_swap(
    machines: Machines, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    for name in ("loft", "shed"):
        await machines.start(name, llama_server=str(REAL))
    left = (await machines.nodes["loft"].state("nobody")).has.memory.cards[0].left
    model = on("loft", "shed", machines=2, memory=int(1.3 * left))
    async with make_gateway({"a": model}, **settings_in(tmp_path)) as running:
        await met(running, "attic", "loft", "shed")
        messages = question(7)
        prompt, _ = await say(running, messages)
        backend = running.gateway.scheduler.backend("a")
        assert isinstance(backend, ReplicatedBackend)
        assert len(backend.spans) == 2
        await unload(running)
        _, cached = await say(running, messages)
        assert cached >= prompt


async def test_nothing_is_known_of_a_node_that_was_removed(
    machines: Machines, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    await start(machines, "cellar")
    async with make_gateway({"a": on("cellar")}, **settings_in(tmp_path)) as running:
        await met(running, "attic", "cellar")
        await say(running, question(8))
        await unload(running)
        await known(tmp_path, "cellar", 1)
        assert (await running.json("DELETE", "/admin/nodes/cellar"))[0] == 200
        await known(tmp_path, "cellar", 0)
        await start(machines, "cellar")
        await met(running, "attic", "cellar")
        await eventually(lambda: saved_on(machines, "cellar") == [], "it is, where it joins again")
