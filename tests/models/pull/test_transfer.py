"""Fetching from a hub whose network breaks off, and from servers without ranges."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.models.fetching import PullProgress, WrongHash
from gateway.models.hub_client import Hub, HubFailed
from tests.hub_server import HubServer, Repo
from tests.models.pull.fetching import NAME, REFERENCE, fetched, files

pytestmark = pytest.mark.slow


def test_a_file_comes_whole(server: HubServer, tmp_path: Path, data: bytes) -> None:
    told = fetched(server, tmp_path)
    assert (tmp_path / NAME / "thing-Q4_0.gguf").read_bytes() == data
    assert files(tmp_path) == {f"{NAME}/thing-Q4_0.gguf": len(data)}
    assert told[0].stage == "downloading"
    assert told[-1] == PullProgress("checking", "thing-Q4_0.gguf", len(data), len(data), len(data))


def test_what_is_there_is_not_fetched_again(server: HubServer, tmp_path: Path) -> None:
    fetched(server, tmp_path)
    told = fetched(server, tmp_path)
    assert len(server.starts()) == 1
    assert {one.stage for one in told} == {"checking"}


def test_parts_and_projector_come_too(server: HubServer, tmp_path: Path) -> None:
    parts = {f"Q8_0/big-Q8_0-0000{n}-of-00002.gguf": bytes([n]) * 1000 * n for n in (1, 2)}
    server.repos[NAME] = Repo({**parts, "mmproj-F16.gguf": b"p" * 500})
    told = fetched(server, tmp_path, "Q8_0")
    assert files(tmp_path) == {
        f"{NAME}/Q8_0/big-Q8_0-00001-of-00002.gguf": 1000,
        f"{NAME}/Q8_0/big-Q8_0-00002-of-00002.gguf": 2000,
        f"{NAME}/mmproj-F16.gguf": 500,
    }
    assert told[-1].done == told[-1].total == 3500


def test_a_small_file_is_checked_as_git_names_it(server: HubServer, tmp_path: Path) -> None:
    server.repos[NAME] = Repo({"thing-Q4_0.gguf": b"small"}, small=("thing-Q4_0.gguf",))
    fetched(server, tmp_path)
    server.damage = lambda path, data: b"SMALL"
    with pytest.raises(WrongHash):
        fetched(server, tmp_path / "again")


def test_a_transfer_that_breaks_off_goes_on_where_it_was(
    server: HubServer, tmp_path: Path, data: bytes
) -> None:
    server.breaks = [100_000, 1, 0, 2_000_000]
    fetched(server, tmp_path)
    assert server.starts() == [0, 100_000, 100_001, 100_001, 2_100_001]
    assert (tmp_path / NAME / "thing-Q4_0.gguf").read_bytes() == data


def test_a_network_that_stays_away_is_told_and_nothing_is_lost(
    server: HubServer, tmp_path: Path, data: bytes
) -> None:
    server.breaks = [1_000_000] + [0] * 10
    with pytest.raises(
        HubFailed,
        match=r"^the connection to localhost broke off; 1\.0 MiB of 2\.9 MiB have come: the same "
        "again goes on",
    ):
        fetched(server, tmp_path)
    assert not (tmp_path / NAME / "thing-Q4_0.gguf").exists()
    server.breaks = []
    fetched(server, tmp_path)
    assert server.starts()[-1] == 1_000_000
    assert (tmp_path / NAME / "thing-Q4_0.gguf").read_bytes() == data


def test_a_busy_hub_is_asked_again(server: HubServer, tmp_path: Path) -> None:
    server.refusals = [("/cdn/", 503, {}), ("/resolve/", 429, {"Retry-After": "0"})]
    told = fetched(server, tmp_path)
    notes = [one.note for one in told if one.note]
    assert any("503" in note for note in notes)
    assert any("too many requests" in note for note in notes)


def test_hub_that_asks_for_too_long_a_wait_is_told(server: HubServer, tmp_path: Path) -> None:
    server.refusals = [("/resolve/", 429, {"Retry-After": "3600"})]
    with pytest.raises(HubFailed, match=r"with a token .* the same again in 3600 s"):
        fetched(server, tmp_path)


def test_a_server_without_ranges_begins_anew(
    server: HubServer, tmp_path: Path, data: bytes
) -> None:
    server.ranges = False
    server.breaks = [2_000_000, 1_000_000]
    fetched(server, tmp_path)
    assert (tmp_path / NAME / "thing-Q4_0.gguf").read_bytes() == data


def test_a_server_without_ranges_is_not_asked_for_ever(server: HubServer, tmp_path: Path) -> None:
    server.ranges = False
    server.breaks = [1_000_000] * 20
    with pytest.raises(HubFailed):
        fetched(server, tmp_path)
    assert len(server.starts()) == 5


def test_a_wrong_range_is_not_written(server: HubServer, tmp_path: Path) -> None:
    server.breaks, server.shift = [1_000_000], 7
    with pytest.raises(HubFailed, match="another part"):
        fetched(server, tmp_path)


def test_large_files_are_asked_for_in_pieces(
    server: HubServer, tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.models.hub_client.AT_ONCE", 1_000_000)
    fetched(server, tmp_path)
    assert server.starts() == [0, 1_000_000, 2_000_000]
    assert (tmp_path / NAME / "thing-Q4_0.gguf").read_bytes() == data


def test_missing_network_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(HubFailed, match=r"127\.0\.0\.1 cannot be reached .* HF_ENDPOINT"):
        Hub("http://127.0.0.1:9").repository(REFERENCE)
