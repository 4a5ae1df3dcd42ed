"""What is saved, in a folder on a disk that others use too, and by a clock that may be wrong."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from gateway.conversations.files import CacheFiles
from gateway.conversations.index import Saved
from gateway.conversations.locked_folder import Unusable
from gateway.conversations.noting import Noting
from gateway.conversations.reported import reported, spared_of
from gateway.conversations.shared import SHARED
from gateway.conversations.shelf import Shelf
from gateway.conversations.store import HereStore
from tests.conversations.test_files import kept, named, opened
from tests.conversations.test_index import DAY, NOW
from tests.conversations.test_place import chain

MIB = 2**20


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """One of 40 MiB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(disk: Path, how: Literal["ro", "rw"]) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


@contextlib.asynccontextmanager
async def shelf_in(folder: Path, wall: Clock | None = None, **more: Any) -> AsyncIterator[Shelf]:
    files = CacheFiles(folder, more.pop("max_size", "auto"), spare=0)
    options = {"max_age": 30 * DAY, "min_tokens": 1, "upkeep_every": 0.01, **more}
    shelf = Shelf(HereStore(files), wall=wall or Clock(NOW), **options)
    await shelf.open()
    try:
        yield shelf
    finally:
        await shelf.close()


async def put(
    shelf: Shelf, folder: Path, name: str, size: int = MIB, *, waits: bool = True, **more: Any
) -> Saved:
    one = named(name)
    one.used = one.created = shelf.wall()
    one.seconds, one.size = 1.0, size
    for field, value in more.items():
        setattr(one, field, value)
    async with shelf.saving(one, one.tokens) as may:
        if may:
            with contextlib.suppress(FileNotFoundError):  # the folder is gone
                (folder / shelf.new_name(one)).write_bytes(bytes(size))
            shelf.put(one)
    if waits:
        await shelf.written()
    return one


def there(folder: Path) -> set[str]:
    return {file.stem for file in folder.glob("*.kv")}


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def passes(shelf: Shelf) -> None:
    """Return after so many looks that what is too old would be gone."""
    await asyncio.sleep(0.5)  # nothing tells that nothing was done


async def test_cache_shrinks_when_others_fill_the_disk_though_nobody_saves(disk: Path) -> None:
    folder = disk / "cache"
    async with shelf_in(folder) as shelf:
        several = [
            await put(shelf, folder, f"{n}", 2 * MIB, seconds=1.0 + n, chain=chain(f"{n}"))
            for n in range(3)
        ]
        for one in several:
            assert one.size == 2 * MIB
        left = there(folder)
        (disk / "film").write_bytes(bytes(31 * MIB))
        await until(lambda: len(there(folder)) < len(left))
        await shelf.written()
        assert sum(file.stat().st_size for file in folder.glob("*.kv")) <= 0.2 * 9 * MIB


async def test_disk_that_is_full_when_it_is_written_down_keeps_nothing(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = CacheFiles(disk / "cache", "auto", spare=0)
    files.open()
    for name in ("one", "two"):
        one = named(name)
        (files.folder / files.new_name(one)).write_bytes(bytes(MIB))
        with pytest.raises(OSError, match="No space"):
            shutil.copyfile("/dev/zero", disk / "film")
        assert not files.keep(one, MIB)
        assert {file.name for file in files.folder.iterdir()} == {"lock"}
        (disk / "film").unlink()
    assert caplog.text.count("cannot be kept") == 1
    kept(files, "three")
    files.close()


async def test_read_only_folder_is_said_once_and_taken_when_that_ends(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = disk / "cache"
    remount(disk, "ro")
    async with shelf_in(folder) as shelf:
        await passes(shelf)
        assert not shelf.usable
        assert caplog.text.count(f"cannot be used: {os.strerror(errno.EROFS)}") == 1
        remount(disk, "rw")
        await until(lambda: shelf.usable)
        one = await put(shelf, folder, "one")
        assert await shelf.is_whole(one)


async def test_folder_that_another_gateway_has_is_taken_when_that_ends(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    other = CacheFiles(folder, "auto")
    other.open()
    async with shelf_in(folder) as shelf:
        assert not shelf.usable
        other.close()
        await until(lambda: shelf.usable)
        with pytest.raises(Unusable, match="in use"):
            other.open()


def test_process_that_a_gateway_started_does_not_hold_its_folder(tmp_path: Path) -> None:
    files = CacheFiles(tmp_path / "cache", "auto")
    files.open()
    waits = [sys.executable, "-c", "print(flush=True); input()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(waits, stdin=pipe, stdout=pipe, close_fds=False) as child:
        assert child.stdout is not None
        child.stdout.readline()  # until a process has begun, it has what its parent has
        files.close()
        other = CacheFiles(tmp_path / "cache", "auto")
        other.open()
        other.close()
        assert child.poll() is None
        child.communicate(b"\n")


async def test_folder_that_is_removed_is_made_anew_and_what_was_in_it_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    async with shelf_in(folder) as shelf:
        one = await put(shelf, folder, "one")
        shutil.rmtree(folder)
        await until(lambda: shelf.longest("f", one.chain) is None)
        await until(lambda: shelf.usable and folder.exists())
        assert folder.stat().st_mode & 0o777 == 0o700
        other = await put(shelf, folder, "other")
        assert await shelf.is_whole(other)
    assert caplog.text.count("was removed") == 1


async def test_clock_that_begins_in_1970_removes_nothing(tmp_path: Path) -> None:
    """As that of a machine without a battery, until the network tells it the time."""
    folder, clock = tmp_path / "cache", Clock(NOW)
    async with shelf_in(folder, clock) as shelf:
        await put(shelf, folder, "before")
    clock.now = 60.0
    async with shelf_in(folder, clock) as shelf:
        await put(shelf, folder, "in 1970", chain=chain("x"))
        await passes(shelf)
        clock.now = NOW + DAY
        await passes(shelf)
        assert len(there(folder)) == 2
        clock.now = NOW + 40 * DAY
        await until(lambda: there(folder) == set())


async def test_clock_that_was_in_the_future_keeps_nothing_for_ever(tmp_path: Path) -> None:
    folder, clock = tmp_path / "cache", Clock(NOW + 3650 * DAY)
    async with shelf_in(folder, clock) as shelf:
        await put(shelf, folder, "one")
        clock.now = NOW
        await passes(shelf)
    clock.now = NOW + 31 * DAY
    async with shelf_in(folder, clock):
        await until(lambda: there(folder) == set())


async def test_clock_that_is_wrong_for_a_moment_removes_nothing(tmp_path: Path) -> None:
    """What is too old is looked for a while after the start, and not when something is saved."""
    folder, clock = tmp_path / "cache", Clock(NOW)
    async with shelf_in(folder, clock) as shelf:
        one = await put(shelf, folder, "one")
    clock.now = NOW + 3650 * DAY
    async with shelf_in(folder, clock, upkeep_every=3600.0) as shelf:
        await put(shelf, folder, "two", chain=chain("x"))
        assert one.name in there(folder)


async def test_conversation_larger_than_the_cache_does_not_stay(tmp_path: Path) -> None:
    """How large it would be was not known."""
    folder = tmp_path / "cache"
    async with shelf_in(folder, max_size=MIB) as shelf:
        await put(shelf, folder, "one", 2 * MIB)
        assert there(folder) == set()


async def test_what_is_being_written_takes_room_as_well(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    async with shelf_in(folder, max_size=5 * MIB) as shelf:
        first = await put(shelf, folder, "0", MIB, tokens=10)
        async with contextlib.AsyncExitStack() as stack:
            may = [
                await stack.enter_async_context(shelf.saving(named(f"{n}"), 10))
                for n in range(1, 8)
            ]
        assert may == [True] * 5 + [False] * 2
        await shelf.written()
        assert first.name not in there(folder)


async def test_nothing_is_kept_of_keys_that_are_not_known(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    async with shelf_in(folder) as shelf:
        shelf.is_known = lambda owner: owner == "k"
        one = await put(shelf, folder, "one")
        await put(shelf, folder, "two", owner="gone")
        assert there(folder) == {one.name}
        assert {file.suffix for file in folder.iterdir()} == {"", ".kv", ".json"}


def noting_on(shelf: Shelf, model: str) -> Noting:
    """What counts hits of a model, and is told of no answer here."""
    return Noting(model, "f", 1, shelf, prewarming=None)


async def test_report_has_what_is_saved_by_model_and_key_and_what_that_spared(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "cache"
    async with shelf_in(folder, max_size=64 * MIB, min_tokens=16) as shelf:
        await put(shelf, folder, "one", 2 * MIB)
        two = await put(shelf, folder, "two", model="n", owner="l", chain=chain("xyz"))
        noting = noting_on(shelf, "n")
        for _ in range(2):
            noting.count("l", 1000, restored=True)
        noting.count("l", 500, restored=False)
        for restored in (True, False):
            noting.count("l", 15, restored=restored)  # what every prompt begins with
        shelf.used(two)
        shelf.switch_off("n", "g", "it is odd")
        report = await reported(shelf, {})
        assert (report.conversations, report.size) == (2, 3 * MIB)
        assert (report.budget, report.problem) == (64 * MIB, None)
        assert report.models == {
            "m": (1, 2 * MIB, 0, 0, 0.0, 0, 0, 0.0, 0, 0, None, None),
            "n": (1, MIB, 2, 2000, 4.0, 1, 500, 1.0, MIB, 0, "it is odd", None),
        }
        assert report.keys == {
            "k": (1, 2 * MIB, 0, 0, 0.0, 0, 0, 0.0, 0, 0, None, None),
            "l": (1, MIB, 2, 2000, 4.0, 1, 500, 1.0, MIB, 0, None, None),
        }
        assert (spared_of("m", [shelf]), spared_of("o", [shelf])) == (report.models["m"], None)


async def test_hits_that_are_only_noted_are_counted_when_somebody_looks(tmp_path: Path) -> None:
    async with shelf_in(tmp_path / "cache", max_size=64 * MIB, min_tokens=16) as shelf:
        live = shelf.tally.live("n", "f", "l")
        assert shelf.tally.live("n", "f", "l") is live
        live.hits, live.tokens = 3, 1500
        for _ in range(2):  # once
            report = await reported(shelf, {})
            spared = spared_of("n", [shelf])
            assert spared == report.models["n"]
            assert report.models["n"][2:8] == report.keys["l"][2:8] == (0, 0, 0.0, 3, 1500, 3.0)
        live.hits, live.tokens = 1, 500
        assert (spared_of("n", [shelf]) or spared).slot_tokens == 2000


async def test_report_lists_what_conversations_begin_with(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    async with shelf_in(folder, max_size=64 * MIB) as shelf:
        await put(shelf, folder, "talk", chain=chain("abc"))
        for name, owner, shared in (("cat", SHARED, 1), ("cat with tools", "k", 2)):
            begins = chain(name[:shared])._replace(shared=shared)
            await put(shelf, folder, name, owner=owner, chain=begins, used=NOW + shared)
        openings = (await reported(shelf, {})).openings
    shown = [(one.key, one.kind, one.size, one.used) for one in openings]
    assert shown == [("k", "tools", MIB, NOW + 2), ("*", "personality", MIB, NOW + 1)]


async def test_report_says_why_the_folder_is_not_used(tmp_path: Path) -> None:
    with opened(tmp_path / "cache"):
        async with shelf_in(tmp_path / "cache", upkeep_every=60.0) as shelf:
            report = await reported(shelf, {})
    assert report.problem == f"{tmp_path / 'cache'} is in use by another gateway"
    assert (report.conversations, report.budget) == (0, 0)


async def test_what_is_shorter_than_was_told_takes_no_room(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    async with shelf_in(folder) as shelf:
        one = named("one")
        one.size = 2 * MIB
        async with shelf.saving(one, one.tokens):
            (folder / shelf.new_name(one)).write_bytes(bytes(MIB))
            shelf.put(one)
        await shelf.written()
        report = await reported(shelf, {})
    assert (report.conversations, report.size, report.models) == (0, 0, {})
