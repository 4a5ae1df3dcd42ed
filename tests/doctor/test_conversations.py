"""The folder of saved conversations, as the gateway tells of it, or as it lies there."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.config.settings import CacheSettings, Settings
from gateway.doctor.checks import Finding, Level, Running, Subject
from gateway.doctor.conversations import check_conversations
from gateway.models.catalog import EMPTY

MIB = 2**20


def subject(tmp_path: Path, cache: dict[str, Any] | None = None, **more: Any) -> Subject:
    """One whose data folder is there, and ``cache`` what its running gateway tells."""
    (tmp_path / "data").mkdir(mode=0o700)
    given = CacheSettings(**{"enabled": True, "max_size": 1024 * MIB, **more})
    settings = dataclasses.replace(Settings(), data_dir=tmp_path / "data", cache=given)
    running = Running(1, {}, cache) if cache is not None else None
    return Subject(settings, EMPTY, {}, running=running)


def folder_of(one: Subject, *, mode: int = 0o700, saved: int = 0) -> Path:
    folder = one.settings.cache_dir
    folder.mkdir()
    folder.chmod(mode)
    for number in range(saved):
        (folder / f"{number:024x}.kv").write_bytes(bytes(MIB))
    return folder


def only(one: Subject) -> Finding:
    (found,) = check_conversations(one)
    assert found.name == "cache"
    return found


def told(**more: Any) -> dict[str, Any]:
    return {
        "enabled": True,
        "folder": "/c",
        "problem": None,
        "conversations": 2,
        "size": 3 * MIB,
        "budget": 4096 * MIB,
        "models": [],
        "keys": [],
        **more,
    }


def test_what_is_saved_and_its_room_are_told(tmp_path: Path) -> None:
    one = subject(tmp_path)
    folder = folder_of(one, saved=2)
    found = only(one)
    assert found.level is Level.OK
    assert found.what == f"2 conversations, 2 MiB of at most 1.0 GiB, in {folder}"


def test_running_gateway_is_asked(tmp_path: Path) -> None:
    found = only(subject(tmp_path, told()))
    assert found.what == "2 conversations, 3 MiB of at most 4.0 GiB, in /c"
    assert found.level is Level.OK


def test_why_the_running_gateway_saves_nothing_is_told(tmp_path: Path) -> None:
    found = only(subject(tmp_path, told(problem="/c is in use by another gateway")))
    assert found.level is Level.WARNING
    assert found.what == "conversations are not saved: /c is in use by another gateway"


def test_what_is_saved_on_nodes_is_told(tmp_path: Path) -> None:
    attic = {"node": "attic", "conversations": 1, "size": MIB, "budget": 2048 * MIB}
    nodes = [{**attic, "problem": None}, {**attic, "node": "cellar", "problem": "it is away"}]
    _, room, away = check_conversations(subject(tmp_path, told(nodes=nodes)))
    assert room.what == "1 conversation, 1 MiB of at most 2.0 GiB, in cache.dir of the node attic"
    assert (room.level, away.level) == (Level.OK, Level.WARNING)
    assert away.what == "conversations are not saved on the node cellar: it is away"


def test_models_that_are_switched_off_are_named(tmp_path: Path) -> None:
    models = [{"model": "a", "switched_off": None}, {"model": "b", "switched_off": "it is odd"}]
    room, off = check_conversations(subject(tmp_path, told(models=models)))
    assert (room.level, off.level) == (Level.OK, Level.WARNING)
    assert off.what == "conversations of b are not saved any more: it is odd"


def test_folder_that_is_not_there_yet_is_no_problem(tmp_path: Path) -> None:
    found = only(subject(tmp_path))
    assert found.level is Level.OK
    assert found.what.endswith("which is not there yet")
    assert not (tmp_path / "data/cache").exists()


@pytest.mark.parametrize("saved", [0, 3])
def test_what_is_left_though_nothing_is_saved_any_more_is_told(tmp_path: Path, saved: int) -> None:
    one = subject(tmp_path, told(enabled=False), enabled=False)
    folder = folder_of(one, saved=saved)
    found = only(one)
    if not saved:
        assert found.level is Level.OK
        assert found.what == "conversations are not saved (cache.enabled is false)"
        return
    assert (found.level, found.do) == (Level.WARNING, "llm-gateway cache clear")
    assert found.what.startswith(f"3 conversations (3 MiB) left in {folder}")


def test_folder_that_is_open_to_others_is_told_and_left_so(tmp_path: Path) -> None:
    one = subject(tmp_path)
    folder = folder_of(one, mode=0o755)
    found = only(one)
    assert (found.level, found.do) == (Level.WARNING, f"chmod 700 {folder}")
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to give a folder away")
def test_folder_of_another_user_than_the_data_folders_is_told(tmp_path: Path) -> None:
    one = subject(tmp_path)
    folder = folder_of(one)
    os.chown(folder, 12345, -1)
    found = only(one)
    assert found.level is Level.WARNING
    assert found.what.startswith(f"{folder} is 12345's, and the gateway runs as ")


def test_too_little_room_is_told(tmp_path: Path) -> None:
    one = subject(tmp_path, max_size=MIB)
    folder_of(one)
    assert only(one).level is Level.WARNING
