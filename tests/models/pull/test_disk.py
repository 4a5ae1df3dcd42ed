"""Fetching onto a disk that is full, read-only, or holds something else."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest

from gateway.models import fetching
from gateway.models.hub_client import HubFailed
from gateway.models.part_file import AlreadyThere, NotStored, PullDiskFull
from tests.hub_server import HubServer
from tests.models.pull.fetching import NAME, fetched, files

pytestmark = pytest.mark.slow


def test_there_is_room_or_nothing_is_fetched(server: HubServer, tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    more = free.f_bavail * free.f_frsize * 2
    server.repos[NAME].listed = {"thing-Q4_0.gguf": {"size": more}}
    with pytest.raises(
        PullDiskFull, match=r"are still to come, and the disk of .* free: make room"
    ):
        fetched(server, tmp_path)
    assert server.starts() == []


def test_file_too_large_for_its_disk_is_gone_on_with(
    server: HubServer, tmp_path: Path, data: bytes
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_234_567, hard))
    try:
        with pytest.raises(PullDiskFull, match="larger than one may be"):
            fetched(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(files(tmp_path).values()) == [1_234_567]
    fetched(server, tmp_path)
    assert server.starts() == [0, 1_234_567]
    assert (tmp_path / NAME / "thing-Q4_0.gguf").read_bytes() == data


def test_disk_that_fills_up_is_told_and_the_part_goes_on_later(
    server: HubServer, tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one: of two megabytes, in memory; where that may not be made, it is skipped."""
    storage = tmp_path / "small"
    storage.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(storage)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        with pytest.raises(PullDiskFull, match="still to come"):
            fetched(server, storage)
        assert server.starts() == []
        # Somebody else takes the room after it was seen to be free.
        monkeypatch.setattr(fetching, "SPARE", -(2**30))
        with pytest.raises(PullDiskFull, match=r"is full: make room there, and the same again"):
            fetched(server, storage)
        assert not (storage / NAME / "thing-Q4_0.gguf").exists()
        subprocess.run(["mount", "-o", "remount,size=8m", str(storage)], check=True)
        fetched(server, storage)
        assert server.starts()[-1] > 1_000_000
        assert (storage / NAME / "thing-Q4_0.gguf").read_bytes() == data
    finally:
        subprocess.run(["umount", str(storage)], check=True)


def test_unwritable_folder_is_told(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "me").write_text("a file")
    with pytest.raises(NotStored, match="cannot be written"):
        fetched(server, tmp_path)


def test_another_file_of_that_name_stays(server: HubServer, tmp_path: Path, data: bytes) -> None:
    place = tmp_path / NAME / "thing-Q4_0.gguf"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    with pytest.raises(AlreadyThere, match="--replace"):
        fetched(server, tmp_path)
    assert place.read_bytes() == b"mine"
    fetched(server, tmp_path, replace=True)
    assert place.read_bytes() == data


def test_a_new_version_does_not_go_on_from_the_old_one(
    server: HubServer, tmp_path: Path, data: bytes
) -> None:
    server.breaks = [1_000_000] + [0] * 9
    with pytest.raises(HubFailed):
        fetched(server, tmp_path)
    server.breaks = []
    server.repos[NAME].files["thing-Q4_0.gguf"] = new = data[::-1]
    fetched(server, tmp_path)
    assert (tmp_path / NAME / "thing-Q4_0.gguf").read_bytes() == new
    assert files(tmp_path) == {f"{NAME}/thing-Q4_0.gguf": len(new)}
