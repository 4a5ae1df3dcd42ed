"""Everything that happens to a folder of conversations, all of it at once."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import pytest

from gateway.conversations.files import CacheFiles
from gateway.conversations.index import Saved
from gateway.conversations.shelf import Shelf
from gateway.tasks import spawn
from tests.conversations.test_place import chain
from tests.conversations.test_shelf import put, shelf_in, until

CLIENTS, STEPS, SIZE = 8, 40, 5000


class Client:
    """One that saves, reads back, and has removed, as chance will have it."""

    def __init__(self, shelf: Shelf, folder: Path, number: int, seed: int) -> None:
        self._shelf = shelf
        self._folder = folder
        self._number = number
        self._random = random.Random(1000 * seed + number)
        self._mine: list[Saved] = []

    async def run(self) -> None:
        for step in range(STEPS):
            what = self._random.choice(
                [self._save, self._save, self._save, self._read, self._read, self._forget]
            )
            await what(step)

    async def _save(self, step: int) -> None:
        said = chain("".join(self._random.choice("abcd") for _ in range(4)))
        one = await put(
            self._shelf,
            self._folder,
            f"{self._number} {step}",
            self._random.randrange(1, SIZE),
            chain=said,
            owner=f"{self._number % 3}",
            waits=False,
        )
        self._mine.append(one)

    async def _read(self, step: int) -> None:
        found = self._shelf.longest("f", chain(self._random.choice("abcd")))
        if found is not None and await self._shelf.is_whole(found.saved):
            self._shelf.used(found.saved)

    async def _forget(self, step: int) -> None:
        if self._random.random() < 0.3:
            owner = f"{self._random.randrange(3)}"
            self._shelf.forget(goes=lambda saved: saved.owner == owner)
            await self._shelf.removed()
        elif self._mine:
            self._shelf.drop(self._random.choice(self._mine))


def all_of(shelf: Shelf) -> list[Saved]:
    found: list[Saved] = []

    def stays(saved: Saved) -> bool:
        found.append(saved)
        return False

    assert shelf.forget(goes=stays) == 0
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("deleted", [False, True])
async def test_what_is_in_the_folder_is_what_is_found(
    tmp_path: Path, seed: int, deleted: bool
) -> None:
    folder = tmp_path / "cache"
    async with shelf_in(folder, max_size=20 * SIZE) as shelf:
        clients = [Client(shelf, folder, number, seed) for number in range(CLIENTS)]
        tasks = [spawn(client.run(), name="a client") for client in clients]
        if deleted:
            await until(lambda: any(folder.glob("*.kv")))
            shutil.rmtree(folder, ignore_errors=True)
        await asyncio.gather(*tasks)
        await until(lambda: shelf.usable)
        await shelf.written()
        everything = all_of(shelf)
        names = {saved.name for saved in everything}
        left = {file.name for file in folder.iterdir()} - {"lock"}
        assert left == {f"{name}{suffix}" for name in names for suffix in (".kv", ".json")}
        held = sum(file.stat().st_size for file in folder.glob("*.kv"))
        assert held == sum(saved.size for saved in everything) <= 20 * SIZE
    files = CacheFiles(folder, "auto")
    try:
        assert {saved.name for saved in files.open()} == names
    finally:
        files.close()
