"""The folder with what is saved."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pytest

from gateway.backends.slot_files import NAME_BYTES
from gateway.conversations.files import CacheFiles
from gateway.conversations.index import Saved
from gateway.conversations.locked_folder import Unusable
from tests.conversations.test_index import saved


def named(name: str) -> Saved:
    """One whose files have such names as the gateway gives."""
    return saved("abc", name=blake2b(name.encode(), digest_size=NAME_BYTES).hexdigest())


def kept(files: CacheFiles, name: str, content: bytes = b"state" * 1000) -> Saved:
    one = named(name)
    (files.folder / files.new_name(one)).write_bytes(content)
    assert files.keep(one, len(content))
    return one


@pytest.fixture
def files(tmp_path: Path) -> Iterator[CacheFiles]:
    with opened(tmp_path / "cache") as (made, found):
        assert found == []
        yield made


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[tuple[CacheFiles, list[Saved]]]:
    made = CacheFiles(folder, "auto")
    try:
        yield made, made.open()
    finally:
        made.close()


def again(files: CacheFiles) -> list[Saved]:
    files.close()
    with opened(files.folder) as (_, found):
        return found


def test_everything_is_found_again(files: CacheFiles) -> None:
    one = kept(files, "one")
    files.close()
    with opened(files.folder) as (later, (found,)):
        for name in Saved.__slots__:
            assert getattr(found, name) == getattr(one, name)
        assert later.is_whole(found)


def test_only_the_owner_may_look(files: CacheFiles) -> None:
    kept(files, "one")
    assert files.folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in files.folder.iterdir()} == {0o600}


def test_folder_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o755)
    with opened(folder):
        pass
    assert folder.stat().st_mode & 0o777 == 0o700


def test_half_files_are_swept(files: CacheFiles) -> None:
    one, two, three = kept(files, "one"), kept(files, "two"), kept(files, "three")
    (files.folder / f"{one.name}.json").unlink()
    (files.folder / f"{two.name}.kv").write_bytes(b"cut")
    (files.folder / files.new_name(named("four"))).write_bytes(b"half")
    (files.folder / f".{three.name}.json.0123").write_bytes(b"{")
    assert [one.name for one in again(files)] == [three.name]
    left = {"lock", f"{three.name}.kv", f"{three.name}.json"}
    assert {file.name for file in files.folder.iterdir()} == left


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"links": "xx", "sizes": []}', "\x00" * 9])
def test_description_that_makes_no_sense_is_swept(files: CacheFiles, text: str) -> None:
    one = kept(files, "one")
    (files.folder / f"{one.name}.json").write_text(text)
    assert again(files) == []
    assert {file.name for file in files.folder.iterdir()} == {"lock"}


def test_cut_flipped_or_missing_file_is_not_whole(files: CacheFiles) -> None:
    content = os.urandom(3 * 2**20)
    for name, change in {
        "cut": content[:-1],
        "flipped": bytes([content[0] ^ 1]) + content[1:],
        "longer": content + b"x",
    }.items():
        one = kept(files, name, content)
        assert files.is_whole(one)
        (files.folder / files.file_name(one)).write_bytes(change)
        assert not files.is_whole(one)
    one = kept(files, "gone", content)
    (files.folder / files.file_name(one)).unlink()
    assert not files.is_whole(one)


def test_file_that_is_not_as_long_as_was_said_is_not_kept(files: CacheFiles) -> None:
    one = named("one")
    (files.folder / files.new_name(one)).write_bytes(b"abc")
    assert not files.keep(one, 4)
    assert {file.name for file in files.folder.iterdir()} == {"lock"}


def test_file_that_is_not_there_is_not_kept(files: CacheFiles) -> None:
    assert not files.keep(named("one"), 4)


def test_second_gateway_in_one_folder_is_refused(files: CacheFiles) -> None:
    with pytest.raises(Unusable, match="in use by another gateway"):
        CacheFiles(files.folder, "auto").open()
    assert again(files) == []


def test_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(Unusable, match="cannot be used"):
        CacheFiles(tmp_path / "cache", "auto").open()


def test_budget_is_what_was_set_or_a_part_of_what_is_free(files: CacheFiles) -> None:
    automatic = files.budget(0)
    assert 0 < automatic < CacheFiles(files.folder, 2**60).budget(0)
    assert CacheFiles(files.folder, 1000).budget(0) == 1000
    assert CacheFiles(files.folder.parent / "gone", "auto").budget(0) == 0


def test_what_is_removed_is_gone(files: CacheFiles) -> None:
    one = kept(files, "one")
    files.remove(one)
    files.remove(one)
    assert {file.name for file in files.folder.iterdir()} == {"lock"}
