"""The folders of a node that hold what llama-servers wrote of their slots."""

from __future__ import annotations

import os
import stat
import time
import zlib
from pathlib import Path

import pytest

from gateway.cluster.slot_folder import SlotFolder, SlotFolders
from tests.conversations.test_files import named

ONE, TWO, THREE = (named(name).name for name in ("one", "two", "three"))
DAY = 86_400.0


@pytest.fixture
def folders(tmp_path: Path) -> SlotFolders:
    return SlotFolders(tmp_path / "cache")


@pytest.fixture
def folder(folders: SlotFolders) -> SlotFolder:
    made = folders.of("a gateway")
    assert made.folder is not None
    return made


def keep(folder: SlotFolder, name: str, content: bytes = b"state") -> Path:
    (folder.path / f"new-{name}").write_bytes(content)
    assert folder.ask("keep", name, len(content)) == zlib.crc32(content)
    return folder.path / f"{name}.kv"


def test_what_is_kept_is_nobody_elses(folder: SlotFolder) -> None:
    file = keep(folder, ONE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for path in (folder.path, folder.path.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_half_a_file_is_not_kept(folder: SlotFolder) -> None:
    new = folder.path / f"new-{ONE}"
    new.write_bytes(b"half")
    assert folder.ask("keep", ONE, 5) is None
    assert [*folder.path.iterdir()] == []


def test_file_that_has_changed_is_not_whole(folder: SlotFolder) -> None:
    file = keep(folder, ONE, b"state")
    assert folder.ask("is_whole", ONE, 5, zlib.crc32(b"state"))
    file.write_bytes(b"other")
    assert not folder.ask("is_whole", ONE, 5, zlib.crc32(b"state"))


def test_meeting_leaves_what_both_know(folder: SlotFolder) -> None:
    kept = keep(folder, ONE)
    keep(folder, TWO)
    late, under_way = (folder.path / f"new-{name}" for name in (TWO, THREE))
    for file in (late, under_way):
        file.write_bytes(b"half")
    os.utime(late, (0, 0))
    other = folder.path / "other"
    other.write_bytes(b"not ours")
    assert folder.ask("meet", {ONE: 5, THREE: 5}) == [THREE]
    left = {file.name for file in folder.path.iterdir()}
    assert left == {kept.name, under_way.name, other.name, "heard"}


def test_file_of_another_size_is_not_what_is_known(folder: SlotFolder) -> None:
    keep(folder, ONE)
    assert folder.ask("meet", {ONE: 6}) == [ONE]
    assert not (folder.path / f"{ONE}.kv").exists()


@pytest.mark.parametrize("name", ["../" + ONE, ONE + "/x", "", "heard", ONE.upper()])
def test_other_names_are_refused(folder: SlotFolder, name: str) -> None:
    for asked in (("keep", name, 1), ("is_whole", name, 1, 1), ("remove", [name])):
        with pytest.raises(ValueError, match="is no name of a file"):
            folder.ask(*asked)


@pytest.mark.parametrize("what", ["folder", "path", "__init__", "_warn_once"])
def test_nothing_else_can_be_asked(folder: SlotFolder, what: str) -> None:
    with pytest.raises(ValueError, match="nothing here is called"):
        folder.ask(what)


async def test_what_a_gateway_left_goes_when_it_has_not_come_for_a_month(tmp_path: Path) -> None:
    names = ("here", "away", "gone")
    before = SlotFolders(tmp_path / "cache")
    paths = {}
    for name, days in zip(names, (40, 20, 40), strict=True):
        folder = before.of(name)
        folder.ask("meet", {})
        keep(folder, ONE)
        paths[name] = folder.path
        ago = time.time() - days * DAY
        os.utime(folder.path / "heard", (ago, ago))
    later = SlotFolders(tmp_path / "cache")
    later.of("here").ask("meet", {ONE: 5})
    await later.look()
    assert [name for name in names if paths[name].exists()] == ["here", "away"]
    assert later.room is not None
    assert 0 < later.room.free <= later.room.total
