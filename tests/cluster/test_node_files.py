"""A model that is on one machine, and wanted on another: from what is missing to what is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.backends.pulls import PullWish
from gateway.cluster.ca import Authority, Credentials, server_name
from gateway.cluster.copying import CopyProgress
from gateway.cluster.node_files import NodeFiles
from gateway.cluster.node_source import CopyFailed
from gateway.models.local_model import LocalModel, Params
from tests.hub_server import tiny_hub

PARTS = tuple(f"owner/repo/big-{number:05}-of-00002.gguf" for number in (1, 2))


def model(file: str, mmproj: str | None = None) -> LocalModel:
    return LocalModel(name="m", params=Params(model=file), mmproj=mmproj)


class Pair:
    """Two machines."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self.authority = authority
        self.told: list[CopyProgress] = []
        self.changes = 0
        self.environ = dict(os.environ)
        self.attic, self.cellar = (self.machine(folder, name) for name in ("attic", "cellar"))
        self.storage = folder / "attic" / "storage"

    def machine(self, folder: Path, name: str) -> NodeFiles:
        storage = folder / name / "storage"
        storage.mkdir(parents=True)
        return NodeFiles(
            name, "127.0.0.1", storage, folder / name, lambda: self.environ, self.changed
        )

    def changed(self) -> None:
        self.changes += 1

    def credentials(self, node: str) -> Credentials:
        return self.authority.issue(server_name(node), server=True, client=True)

    async def bring(self, spec: LocalModel) -> None:
        """Let the cellar have from the attic what it lacks."""
        lacks = [one.copied_as for one in await self.cellar.missing(spec) if one.copied_as]
        offer = await self.attic.give(spec, lacks, self.credentials("attic"))
        offers = [] if offer is None else [offer]
        await self.cellar.fetch(spec, offers, self.credentials("cellar"), self.told.append)
        if offer is not None:
            await self.attic.take_back(offer.id)


@pytest.fixture
async def pair(authority: Authority, tmp_path: Path) -> AsyncIterator[Pair]:
    made = Pair(authority, tmp_path)
    await asyncio.gather(made.attic.open(), made.cellar.open())
    yield made
    await asyncio.gather(made.attic.close(), made.cellar.close())


async def test_every_part_of_a_model_and_its_projector_come_over(pair: Pair) -> None:
    for name in (*PARTS, "mmproj.gguf", "another.gguf"):
        file = pair.storage / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"GGUF" + os.urandom(100_000))
    spec = model(PARTS[0], "mmproj.gguf")
    await pair.bring(spec)
    assert set(pair.cellar.files) == {*PARTS, "mmproj.gguf"}
    assert await pair.cellar.missing(spec) == []
    assert pair.told[-1].total == 3 * 100_004
    told = len(pair.told)
    await pair.bring(spec)  # nothing is left to do
    assert len(pair.told) == told


async def test_what_nobody_has_is_said(pair: Pair) -> None:
    with pytest.raises(CopyFailed, match=r"no machine of the cluster has none\.gguf"):
        await pair.bring(model("none.gguf"))


async def test_what_cannot_be_copied_is_said_before_anything_is(pair: Pair) -> None:
    (pair.storage / "a.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(CopyFailed, match=r"cellar: /elsewhere/p\.gguf is not below") as caught:
        await pair.bring(model("a.gguf", "/elsewhere/p.gguf"))
    assert caught.value.code == "not_copied"
    assert pair.cellar.files == {}


async def test_a_node_pulls_by_itself(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny_hub("tiny/thing-GGUF", tmp_path, monkeypatch):
        pair.environ = dict(os.environ)
        wish = PullWish("tiny/thing-GGUF")
        pull = pair.cellar.pull(wish, "auto", {})
        assert pair.cellar.pull(wish, "auto", {}) is pull
        over = asyncio.Event()

        def look() -> None:
            if pull.over:
                over.set()

        pair.cellar.pulls.subscribe(look)
        async with asyncio.timeout(60):
            await over.wait()
    assert (pull.stage, pull.error, pull.name) == ("done", None, "tiny")
    assert pull.entry is not None
    assert pull.entry["params"]["model"] in pair.cellar.files
