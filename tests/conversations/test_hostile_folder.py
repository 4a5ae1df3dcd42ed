"""A folder of saved conversations with things in it that the gateway didn't put there."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.conversations.facts import read, written
from gateway.conversations.files import CacheFiles
from gateway.conversations.index import Index, Saved, least_valuable, mend_times, too_old
from gateway.conversations.locked_folder import Unusable
from tests.conversations.test_files import again, kept, named, opened
from tests.conversations.test_files import files as files

STRANGERS = ("models.json", "gpus.json", "notes.kv", "new-year", "a.json.b", "ABCDEF.json")


def test_what_is_not_of_the_cache_is_never_touched(tmp_path: Path) -> None:
    """Someone who writes ``dir: data`` loses nothing."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    for name in STRANGERS:
        (folder / name).write_text(name)
    (folder / f"{named('a folder').name}.kv").mkdir()
    with opened(folder) as (made, found):
        assert found == []
        one = kept(made, "one")
        made.sweep_late(-1.0)
    assert [one.name for one in again(made)] == [one.name]
    assert [(folder / name).read_text() for name in STRANGERS] == [*STRANGERS]


def test_folder_that_others_use_too_is_not_closed_to_them(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    (folder / "models.json").write_text("{}")
    with pytest.raises(Unusable, match=r"holds other things, such as 'models\.json'"):
        CacheFiles(folder, "auto").open()
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, -1)
    with pytest.raises(Unusable, match="belongs to another user"):
        CacheFiles(folder, "auto").open()
    assert [*folder.iterdir()] == []


@pytest.mark.parametrize("suffix", [".kv", ".json"])
@pytest.mark.parametrize("what", ["link", "pipe"])
def test_link_or_pipe_is_not_followed_and_nothing_waits_for_it(
    files: CacheFiles, tmp_path: Path, what: str, suffix: str
) -> None:
    one = kept(files, "one")
    file, outside = files.folder / f"{one.name}{suffix}", tmp_path / "outside"
    file.rename(outside)
    before = outside.read_bytes()
    if what == "link":
        file.symlink_to(outside)
    else:
        os.mkfifo(file)
    assert suffix == ".json" or not files.is_whole(one)
    assert again(files) == []
    assert {file.name for file in files.folder.iterdir()} == {"lock"}
    assert outside.read_bytes() == before


def test_pipe_that_llama_server_should_have_written_is_not_read(files: CacheFiles) -> None:
    one = named("one")
    os.mkfifo(files.folder / files.new_name(one))
    assert not files.keep(one, 0)
    assert {file.name for file in files.folder.iterdir()} == {"lock"}


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_lock_that_is_no_plain_file_is_refused(tmp_path: Path, what: str) -> None:
    folder, outside = tmp_path / "cache", tmp_path / "outside"
    folder.mkdir(mode=0o700)
    lock = folder / "lock"
    if what == "link":
        lock.symlink_to(outside)
    elif what == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    with pytest.raises(Unusable, match="cannot be used"):
        CacheFiles(folder, "auto").open()
    assert not outside.exists()


def test_folder_that_was_removed_is_not_held_any_more(files: CacheFiles) -> None:
    assert files.is_held()
    files.folder.rename(files.folder.with_name("moved"))
    assert not files.is_held()
    files.folder.mkdir(mode=0o700)
    with opened(files.folder) as (other, _):
        assert other.is_held()
        assert not files.is_held()


def test_file_that_is_longer_than_any_description_is_not_read(files: CacheFiles) -> None:
    one = kept(files, "one")
    with (files.folder / f"{one.name}.json").open("r+b") as stream:
        stream.truncate(2**40)  # a sparse one: it takes no room
    assert again(files) == []


WRONG: list[dict[str, Any]] = [
    {"name": "../../x"},
    {"name": "x/y"},
    {"name": None},
    {"owner": 1},
    {"model": ["m"]},
    {"fingerprint": {}},
    {"tokens": "10"},
    {"tokens": 0},
    {"tokens": -5},
    {"tokens": True},
    {"tokens": 1.5},
    {"promised": "8"},
    {"promised": -8},
    {"promised": 1000},
    {"seconds": None},
    {"seconds": -1.0},
    {"seconds": "1"},
    {"used": "now"},
    {"created": []},
    {"size": 10**17},
    {"check": -1},
    {"check": None},
    {"links": ""},
    {"links": "00" * 15},
    {"links": "zz" * 16},
    {"links": 7},
    {"links": "00" * 16 * 50_000},
    {"sizes": []},
    {"sizes": [1, 2]},
    {"sizes": [1, 2, "3"]},
    {"sizes": [3, 2, 1]},
    {"sizes": [1, 2, 3.5]},
    {"sizes": [-1, 0, 1]},
    {"sizes": {"a": 1}},
    {"more": 1},
]


@pytest.mark.parametrize("change", WRONG, ids=lambda change: str(change)[:40])
def test_description_with_something_wrong_in_it_is_swept(
    files: CacheFiles, change: dict[str, Any]
) -> None:
    one = kept(files, "one")
    facts = files.folder / f"{one.name}.json"
    facts.write_bytes(orjson.dumps({**orjson.loads(facts.read_bytes()), **change}))
    assert again(files) == []
    assert {file.name for file in files.folder.iterdir()} == {"lock"}


def test_same_description_under_another_name_is_swept(files: CacheFiles) -> None:
    one, other = kept(files, "one"), named("other")
    for suffix in (".kv", ".json"):
        content = (files.folder / f"{one.name}{suffix}").read_bytes()
        (files.folder / f"{other.name}{suffix}").write_bytes(content)
    assert [found.name for found in again(files)] == [one.name]


def test_description_cut_or_flipped_anywhere_is_refused_or_harmless() -> None:
    """Whatever is still understood can be searched, weighed and removed."""
    chosen = random.Random(15)
    one = named("one")
    text = written(one)
    damaged = [text[:at] for at in range(len(text))]
    for at in range(len(text)):
        for _ in range(8):
            damaged.append(text[:at] + bytes([chosen.randrange(256)]) + text[at + 1 :])
    understood = [found for each in damaged if (found := read(each)) is not None]
    assert read(text) is not None
    assert len(understood) < len(damaged) / 2
    for found in understood:
        harmless(found, one)


def harmless(found: Saved, asked: Saved) -> None:
    index = Index()
    index.add(found)
    index.longest(found.fingerprint, asked.chain)
    assert found.chain.size() >= found.chain.size(1) >= 0
    assert found.worth(0.0) >= 0
    assert index.contained(found) == []
    assert least_valuable(index, 0.0, found.size + 1) == [found]
    mend_times(index, 2e9)
    assert too_old(index, 3e9, 1.0) == [found]
    index.remove(found)
    assert (len(index), index.size) == (0, 0)
    assert read(written(found)) is not None


def test_nobody_who_is_late_writes_what_was_removed(files: CacheFiles) -> None:
    one = kept(files, "one")
    files.remove(one)
    files.note(one)
    assert {file.name for file in files.folder.iterdir()} == {"lock"}


def test_what_llama_server_wrote_when_nobody_waited_any_more_is_swept(files: CacheFiles) -> None:
    late, new = (files.folder / files.new_name(named(name)) for name in ("late", "new"))
    for file in (late, new):
        file.write_bytes(b"half")
    os.utime(late, (0, 0))
    files.sweep_late(600.0)
    assert {file.name for file in files.folder.iterdir()} == {"lock", new.name}


def test_what_cannot_be_removed_is_said_once(
    files: CacheFiles, caplog: pytest.LogCaptureFixture
) -> None:
    several = [kept(files, name) for name in "abc"]
    for one in several:
        state = files.folder / files.file_name(one)
        state.unlink()
        state.mkdir()  # as root may remove everything else
    files.remove(*several)
    assert caplog.text.count("cannot be removed") == 1
