"""Models on nodes that lack their files: copied from one that has them."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path

import pytest

from gateway.errors import LoadFailed, Unavailable
from gateway.models.fetching import part_of
from gateway.models.hub import HubFile
from gateway.models.local_model import LocalModel
from tests.cluster.machines import Machines, gateway_of, up
from tests.cluster.test_placing import answer, machines, own
from tests.schedulers import fails
from tests.scripted import until

__all__ = ["machines", "own"]

FILE = "qwen/model-with-a-long-name.gguf"


def stored(folder: Path, content: bytes = b"GGUF" + 1000 * b"model ") -> Path:
    file = folder / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


@pytest.fixture
def storages(tmp_path: Path) -> tuple[Path, Path]:
    """Those of the attic, which has a model, and of the cellar, which has none."""
    (tmp_path / "cellar").mkdir()
    return stored(tmp_path / "attic"), tmp_path / "cellar"


async def both(machines: Machines, storages: tuple[Path, Path]) -> None:
    there, other = storages
    await machines.start("attic", llm_storage=there.parents[1])
    await machines.start("cellar", llm_storage=other)


async def test_a_node_that_is_named_copies_what_it_lacks(
    machines: Machines, own: Path, storages: tuple[Path, Path]
) -> None:
    await both(machines, storages)
    there, other = storages
    model = machines.box.spec("a", model=FILE, nodes=("cellar",))
    async with gateway_of(machines, model, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        seen = set[str | None]()
        backend = scheduler.backend("a")
        assert backend is not None
        scheduler.subscribe(lambda: seen.add(backend.stage))
        assert await answer(scheduler) == 200
        assert backend.node == "cellar"
        assert (other / FILE).read_bytes() == there.read_bytes()
        assert f"copying {Path(FILE).name} from attic" in seen
        assert backend.stage is None


async def test_a_node_copies_what_the_gateway_has_alone(machines: Machines, own: Path) -> None:
    """From where an earlier copy has ended."""
    ours = stored(machines.box.folder, b"GGUF" + random.Random(1).randbytes(4_000_000))
    other = own.parent / "cellar"
    content = ours.read_bytes()
    part = part_of(other / FILE, HubFile(FILE, len(content), hashlib.sha256(content).hexdigest()))
    part.parent.mkdir(parents=True)
    part.write_bytes(content[:3_000_000])
    await machines.start("cellar", llm_storage=other)
    model = machines.box.spec("a", model=FILE, nodes=("cellar",))
    async with gateway_of(machines, model, folder=own) as (scheduler, cluster):
        await up(cluster, "cellar")
        backend = scheduler.backend("a")
        assert backend is not None
        seen: dict[str | None, list[float]] = {}
        scheduler.subscribe(
            lambda: seen.setdefault(backend.stage, []).append(backend.progress or 0.0)
        )
        assert await answer(scheduler) == 200
        assert backend.node == "cellar"
        assert (other / FILE).read_bytes() == content
        assert min(seen[f"copying {ours.name} from here"]) >= 0.74


async def test_a_damaged_copy_is_not_used(machines: Machines, own: Path) -> None:
    ours = stored(machines.box.folder)
    other = own.parent / "cellar"
    content = ours.read_bytes()
    part = part_of(other / FILE, HubFile(FILE, len(content), hashlib.sha256(content).hexdigest()))
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(2000))
    await machines.start("cellar", llm_storage=other)
    model = machines.box.spec("a", model=FILE, nodes=("cellar",))
    async with gateway_of(machines, model, folder=own) as (scheduler, cluster):
        await up(cluster, "cellar")
        error = await fails(scheduler.load("a"), LoadFailed)
        assert "cellar: " in error.message
        assert "did not come as here has it (its hash is another)" in error.message
        assert "could not be copied" in error.public
        assert all(name not in error.public for name in ("cellar", str(other), Path(FILE).name))
        assert list((other / FILE).parent.iterdir()) == []
        await scheduler.load("a")
        assert (other / FILE).read_bytes() == content


async def test_what_the_gateway_has_is_not_for_nodes_that_are_not_named(
    machines: Machines, own: Path
) -> None:
    stored(machines.box.folder)
    other = own.parent / "cellar"
    await machines.start("cellar", llm_storage=other)
    async with gateway_of(machines, machines.box.spec("a", model=FILE), folder=own) as (
        scheduler,
        cluster,
    ):
        await up(cluster, "cellar")
        assert await answer(scheduler) == 200
        assert scheduler.status()[0].pid is not None  # it runs here
        assert not other.exists()


async def test_a_node_that_has_them_comes_first(
    machines: Machines, own: Path, storages: tuple[Path, Path]
) -> None:
    await both(machines, storages)
    model = machines.box.spec("a", model=FILE, nodes=("cellar", "attic"))
    async with gateway_of(machines, model, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        assert await answer(scheduler) == 200
        backend = scheduler.backend("a")
        assert backend is not None
        assert backend.node == "attic"
        await cluster.drain("attic")
        await until(scheduler, lambda: backend.node == "cellar")
        assert await answer(scheduler) == 200


async def test_a_node_that_is_not_named_copies_nothing(
    machines: Machines, own: Path, storages: tuple[Path, Path]
) -> None:
    await both(machines, storages)
    _, other = storages
    async with gateway_of(machines, machines.box.spec("a", model=FILE), folder=own) as (
        scheduler,
        cluster,
    ):
        await up(cluster, "attic", "cellar")
        assert await answer(scheduler) == 200
        backend = scheduler.backend("a")
        assert backend is not None
        assert backend.node == "attic"
        assert list(other.iterdir()) == []


async def test_what_nobody_gives_is_told(
    machines: Machines, own: Path, storages: tuple[Path, Path]
) -> None:
    await both(machines, storages)
    there, other = storages
    model = machines.box.spec("a", model=FILE, nodes=("cellar",))
    async with gateway_of(machines, model, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        assert await answer(scheduler) == 200
        await scheduler.unload("a")
        (other / FILE).unlink()
        there.unlink()
        error = await fails(scheduler.load("a"), Unavailable)
        assert "ellar hasn't its files" in error.message
        assert machines.reserved == {}


async def test_news_of_another_file_do_not_stop_a_copy_that_begins(
    machines: Machines, own: Path, storages: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    await both(machines, storages)
    there, other = storages
    cellar = machines.nodes["cellar"]
    model = machines.box.spec("a", model=FILE, nodes=("cellar",))
    async with gateway_of(machines, model, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        attic = next(node for node in cluster.nodes if node.name == "attic")
        heard, changed, lacks = asyncio.Event(), cluster.changed, cellar.lacks

        def hear() -> None:
            changed()
            if "another.gguf" in attic.files:
                heard.set()

        async def late(spec: LocalModel) -> list[str]:
            (there.parents[1] / "another.gguf").write_bytes(b"GGUF")
            await heard.wait()
            return await lacks(spec)

        monkeypatch.setattr(cluster, "changed", hear)
        monkeypatch.setattr(cellar, "lacks", late)
        await scheduler.load("a")
        assert (other / FILE).read_bytes() == there.read_bytes()
