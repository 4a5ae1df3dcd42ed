"""models.json as it stands on disk."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway import library
from gateway.errors import CatalogBroken
from gateway.library import Library, read_catalog
from gateway.models.catalog import EMPTY
from gateway.problems import InvalidFiles
from gateway.tasks import cancel_and_wait, spawn
from tests.harness import eventually


async def test_a_change_is_not_lost_with_who_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that asks for a model not known yet, and leaves while the file is read."""
    file = tmp_path / "models.json"
    file.write_text("{}")
    found = Library.open(file)
    reading, go = threading.Event(), threading.Event()

    def slowly(path: Path) -> Any:
        reading.set()
        go.wait(20)
        return read_catalog(path)

    monkeypatch.setattr(library, "read_catalog", slowly)
    file.write_text(json.dumps({"new": {"params": {"model": "x.gguf"}}}))
    asking = spawn(found.refresh(), name="ask")
    assert await asyncio.to_thread(reading.wait, 20)
    await cancel_and_wait(asking)
    go.set()
    await found.refresh()
    assert list(found.catalog.models) == ["new"]


async def test_a_broken_file_is_an_error_only_where_there_was_no_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, subtests: pytest.Subtests
) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / "models.json"
    file.write_text('{"m": }')
    without = Library(file, EMPTY, None)
    await without.refresh()
    with pytest.raises(CatalogBroken, match=r"^Failed to load models: .*models\.json"):
        without.check()
    assert without.created == 0

    file.write_text("{}")
    told: list[str | None] = []
    found = Library.open(file)
    found.subscribe(lambda: told.append(found.broken))
    created = found.created
    caplog.clear()
    for broken in ("{", "[]", None):
        with subtests.test(f"{broken!r:.80}"):
            file.unlink()
            if broken is not None:
                file.write_text(broken)
            for _ in range(2):  # told once
                await found.refresh()
            found.check()
            assert found.note is not None
            assert "the last good one stays in use" in found.note
            assert found.created == created
            assert str(file) in caplog.messages.pop()
    assert [type(reason) for reason in told] == [str, str, str]
    caplog.clear()
    file.write_text("{}")
    await found.refresh()
    assert (found.note, found.broken, told[-1]) == (None, None, None)
    assert caplog.messages == ["models.json is in order again"]


async def test_change_behind_a_link_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of changes there nothing is told: the folder of the link stays as it is."""
    monkeypatch.setattr(library, "LOOK_ANYWAY_MS", 100)
    real, link = tmp_path / "real/mine.json", tmp_path / "data/models.json"
    for file in (real, link):
        file.parent.mkdir()
    real.write_text("{}")
    link.symlink_to(real)
    found = Library.open(link)
    taken = asyncio.Event()
    found.changed = lambda catalog: taken.set()
    watching = spawn(found.watch(), name="watch")
    real.write_text(json.dumps({"new": {"params": {"model": "x.gguf"}}}))
    async with asyncio.timeout(20):
        await taken.wait()
    assert found.catalog.names == ["new"]
    await cancel_and_wait(watching)


async def test_a_start_finds_the_last_good_file_in_place_of_a_broken_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, copy = tmp_path / "models.json", tmp_path / "data/models.last-good.json"
    copy.parent.mkdir()
    file.write_text(json.dumps({"old": {"params": {"model": "x.gguf"}}}))
    watching = spawn(Library.open(file, copy=copy).watch(), name="watch")
    await eventually(copy.exists)
    await cancel_and_wait(watching)
    assert copy.stat().st_mode & 0o777 == 0o600  # there may be keys of other servers in it
    file.write_text('{\n  "new": {"params"\n}')

    found = Library.open(file, copy=copy)

    assert list(found.catalog.models) == ["old"]
    assert found.note == "models.json is broken: the last good one stays in use until it is mended"
    for told in (str(found.broken), caplog.text):
        assert f"{file}: is not valid JSON, line 3" in told
    await found.refresh()
    assert list(found.catalog.models) == ["old"]
    assert "old" in copy.read_text()
    file.write_text(json.dumps({"new": {"params": {"model": "x.gguf"}}}))
    await found.refresh()
    assert (list(found.catalog.models), found.broken) == (["new"], None)
    assert copy.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("kept", [None, "", "{", "[]"])
def test_a_start_without_a_good_file_fails_by_what_is_wrong_with_it(
    tmp_path: Path, kept: str | None
) -> None:
    file, copy = tmp_path / "models.json", tmp_path / "copy.json"
    file.write_text('{\n  "new": {"params"\n}')
    if kept is not None:
        copy.write_text(kept)
    with pytest.raises(InvalidFiles) as caught:
        Library.open(file, copy=copy)
    assert [problem.file for problem in caught.value.problems] == [str(file)]
