"""What is saved on a node, as its gateway knows it; the node is a folder here."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from gateway.backends.nodes import Room
from gateway.backends.slot_files import SlotFiles
from gateway.conversations.index import Saved
from gateway.conversations.locked_folder import Unusable
from gateway.conversations.node_facts import NodeFacts
from gateway.conversations.node_store import NodeStore
from gateway.errors import Unavailable
from gateway.tasks import spawn
from tests.conversations.test_files import named

SIZE = 5
GIB = 2**30


class Attic:
    """The files of a node, which may be away, or slow to keep one."""

    node = "attic"

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._files = SlotFiles(folder, lambda what, error: None)
        self.folder = folder
        self.room: Room | None = Room(100 * GIB, 50 * GIB)
        self.problem: str | None = None
        self.keeps, self.asked_to_keep = asyncio.Event(), asyncio.Event()
        self.keeps.set()
        self.asked: list[Mapping[str, int]] = []

    def _there(self) -> None:
        if self.problem is not None:
            raise Unavailable(self.problem)

    async def meet(self, known: Mapping[str, int]) -> Collection[str]:
        self._there()
        self.asked.append(known)
        there = self._files.sizes()
        for name in there.keys() - known.keys():
            self._files.remove(name)
        return known.keys() - there.keys()

    async def keep(self, name: str, written: int) -> int | None:
        self._there()
        self.asked_to_keep.set()
        await self.keeps.wait()
        return self._files.keep(name, written)

    async def is_whole(self, name: str, size: int, check: int) -> bool:
        self._there()
        return self._files.is_whole(name, size, check)

    async def remove(self, names: Sequence[str]) -> None:
        self._there()
        for name in names:
            self._files.remove(name)

    def written(self, saved: Saved) -> None:
        """Have llama-server write it."""
        (self.folder / f"new-{saved.name}").write_bytes(bytes(SIZE))

    @property
    def names(self) -> set[str]:
        return {file.stem for file in self.folder.glob("*.kv")}


@pytest.fixture
def attic(tmp_path: Path) -> Attic:
    return Attic(tmp_path / "attic")


def store_of(attic: Attic, tmp_path: Path) -> NodeStore:
    return NodeStore(NodeFacts(tmp_path / "cache", "attic"), attic, "auto")


async def kept(store: NodeStore, attic: Attic, name: str) -> Saved:
    one = named(name)
    attic.written(one)
    assert await store.keep(one, SIZE)
    return one


async def test_what_is_removed_while_the_node_is_away_goes_when_it_is_met(
    attic: Attic, tmp_path: Path
) -> None:
    store = store_of(attic, tmp_path)
    await store.open()
    one, two = [await kept(store, attic, name) for name in ("one", "two")]
    attic.problem = "away"
    await store.remove(one)
    await store.close()
    assert attic.names == {one.name, two.name}
    later = store_of(attic, tmp_path)
    assert [saved.name for saved in await later.open()] == [two.name]
    assert await later.gone() == ()
    attic.problem = None
    assert await later.gone() == []
    assert attic.names == {two.name}
    await later.close()


async def test_what_the_node_has_lost_is_told(attic: Attic, tmp_path: Path) -> None:
    store = store_of(attic, tmp_path)
    await store.open()
    one, _ = [await kept(store, attic, name) for name in ("one", "two")]
    (attic.folder / f"{one.name}.kv").unlink()
    assert await store.gone() == [one.name]
    await store.close()


async def test_what_is_being_kept_is_neither_removed_nor_lost(attic: Attic, tmp_path: Path) -> None:
    store = store_of(attic, tmp_path)
    await store.open()
    one = named("one")
    attic.written(one)
    attic.keeps.clear()
    keeping = spawn(store.keep(one, SIZE), name="keep one")
    await attic.asked_to_keep.wait()
    assert await store.gone() == []
    assert attic.asked[-1] == {one.name: SIZE}
    attic.keeps.set()
    assert await keeping
    assert attic.names == {one.name}
    assert await store.gone() == []
    await store.close()


async def test_node_that_is_away_says_nothing_of_a_file(attic: Attic, tmp_path: Path) -> None:
    store = store_of(attic, tmp_path)
    await store.open()
    one = await kept(store, attic, "one")
    assert await store.is_whole(one) is True
    attic.problem = "away"
    assert await store.is_whole(one) is None
    assert not await store.keep(named("two"), SIZE)
    await store.close()
    assert [file.stem for file in (tmp_path / "cache/nodes/attic").glob("*.json")] == [one.name]


async def test_budget_is_a_part_of_the_disk_of_the_node(attic: Attic, tmp_path: Path) -> None:
    store = store_of(attic, tmp_path)
    fifth = (50 + 10) * GIB // 5
    assert await store.budget(10 * GIB) == fifth
    assert await store.budget(12 * GIB) == fifth, "what was saved since took of what was free"
    attic.room = Room(100 * GIB, 8 * GIB)
    assert await store.budget(12 * GIB) == (8 + 12) * GIB // 5
    assert store.disk == 100 * GIB
    attic.room = Room(100 * GIB, 0)
    assert await store.budget(0) == 0


async def test_nothing_is_thrown_away_while_nobody_knows_how_much_room_there_is(
    attic: Attic, tmp_path: Path
) -> None:
    attic.room = None
    store = store_of(attic, tmp_path)
    assert await store.budget(10 * GIB) > 10 * GIB
    assert store.problem is not None, "nor is more saved"


async def test_facts_have_one_gateway(attic: Attic, tmp_path: Path) -> None:
    store = store_of(attic, tmp_path)
    await store.open()
    with pytest.raises(Unusable, match="in use by another gateway"):
        await store_of(attic, tmp_path).open()
    await store.close()
    folder = tmp_path / "cache/nodes/attic"
    (folder / f"{named('odd').name}.json").write_bytes(b"{}")
    (folder / "other").write_bytes(b"not ours")
    later = store_of(attic, tmp_path)
    assert await later.open() == []
    assert {file.name for file in folder.iterdir()} == {"lock", "other"}
    await later.close()
