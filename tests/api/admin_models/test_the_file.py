"""models.json as /admin/models finds it: broken, a link, read-only."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.places import skeleton
from tests.api.admin_models.box import TEXT, Box
from tests.harness import Served

BROKEN = (
    b"{",
    b"[]",
    b'{"a": {"params": {"model": "a.gguf"}}, "a": {}}',
    b'{"other": {"params": {"modle": "a.gguf"}}}',
    b"\xff\xfe{\x00}\x00",
)


async def test_a_broken_file_is_left_alone(box: Box, subtests: pytest.Subtests) -> None:
    for text in BROKEN:
        with subtests.test(f"{text!r:.80}"):
            box.file.write_bytes(text)
            entry = {"params": {"model": "a.gguf"}}
            status, error = await box.refused("PUT", "new", entry)
            assert (status, error["code"]) == (409, "models_file_broken")
            assert "models.json is broken" in error["message"]
            assert box.known == ["first", "second"]  # the last good one


async def test_the_entry_that_broke_it_can_be_mended(box: Box) -> None:
    box.write('{"a": {"params": {"modle": "a.gguf"}}, "b": {"params": {"model": "b.gguf"}}}')
    assert (await box.ask("GET", "a"))[1] == {"params": {"modle": "a.gguf"}}
    status, _, _ = await box.ask("PATCH", "a", {"params": {"modle": None, "model": "a.gguf"}})
    assert status == 200
    assert box.known == ["a", "b"]
    assert box.running.gateway.library.broken is None


async def test_a_first_entry_makes_the_file(box: Box) -> None:
    box.file.unlink()
    assert (await box.ask("GET", "first"))[0] == 404
    entry = {"params": {"model": "a.gguf"}}
    assert (await box.ask("PUT", "new", entry))[0] == 201
    assert (box.entries, box.known) == ({"new": entry}, ["new"])
    assert box.file.stat().st_mode & 0o777 == 0o600


async def test_a_models_json_that_is_a_link_stays_one(box: Box, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere/real.json"
    real.parent.mkdir()
    box.file.rename(real)
    box.file.symlink_to(real)
    assert (await box.ask("PATCH", "first", {"pinned": True}))[0] == 200
    assert box.file.is_symlink()
    assert json.loads(real.read_text())["first"]["pinned"] is True
    assert real.with_name("real.json~").read_text() == TEXT


async def test_folder_in_place_of_the_file_is_told(box: Box) -> None:
    box.file.unlink()
    box.file.mkdir()
    status, error = await box.refused("PUT", "new", {"params": {"model": "a.gguf"}})
    assert (status, error["code"]) == (409, "models_file_broken")
    assert "cannot be read" in error["message"]


@contextlib.contextmanager
def closed(path: Path) -> Iterator[None]:
    """``path`` cannot be written, by root neither."""
    if os.geteuid() != 0:
        mode = path.stat().st_mode
        path.chmod(mode & ~0o222)
        yield
        path.chmod(mode)
        return
    done = subprocess.run(["chattr", "+i", path], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"root, and {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


@pytest.mark.parametrize("what", ["the file", "its folder"])
async def test_read_only_file_is_told_and_left_alone(
    box: Box, what: str, subtests: pytest.Subtests
) -> None:
    """The one of a service is root's."""
    entry = {"params": {"model": "a.gguf"}}
    assert (await box.editable())["writable"] is True
    with closed(box.file if what == "the file" else box.file.parent):
        told = await box.editable()  # before anybody tries
        assert (told["writable"], told["process_settings"]) == (False, False)
        assert "may not write" in told["reason"]
        for method, body in (("PUT", entry), ("PATCH", {"pinned": True}), ("DELETE", None)):
            with subtests.test(f"{method!r:.80}"):
                status, error = await box.refused(method, "first", body)
                assert (status, error["code"]) == (403, "not_writable")
                assert "models.json cannot be written: " in error["message"]
        assert (await box.ask("GET", "first"))[0] == 200
    assert (await box.ask("PATCH", "first", {"pinned": True}))[0] == 200
    assert [file.name for file in box.file.parent.glob(".models*")] == []


def test_the_demonstrations_file_is_not_written(demo: Served) -> None:
    shipped = skeleton("data/models.json").read_bytes()
    request = urllib.request.Request(
        f"{demo.url}/admin/models/new",
        b'{"url": "https://box.example"}',
        {"Authorization": f"Bearer {demo.key}", "Content-Type": "application/json"},
        method="PUT",
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    assert refused.value.code == 403
    assert "llm-gateway init DIR" in refused.value.read().decode()
    request = urllib.request.Request(
        f"{demo.url}/admin/models", headers={"Authorization": f"Bearer {demo.key}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        told = json.load(answer)["models_file"]
    assert told["writable"] is False
    assert "llm-gateway init DIR" in told["reason"]
    assert skeleton("data/models.json").read_bytes() == shipped
