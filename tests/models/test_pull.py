"""Fetching from a hub that breaks off, refuses, lies and is full."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError, NotFound
from gateway.models import pull as pull_module
from gateway.models.hub import Reference, choose
from gateway.models.hub_client import Hub, HubFailed, HubRefuses
from gateway.models.pull import (
    AlreadyThere,
    DiskFull,
    NotStored,
    Plan,
    Progress,
    WrongHash,
    pull,
)
from tests.harness import tied, wait_until
from tests.hub_server import HubServer, Repo, hub_server

pytestmark = pytest.mark.slow

NAME = "me/thing-GGUF"
REFERENCE = Reference("me", "thing-GGUF")


@pytest.fixture
def data() -> bytes:
    return random.Random(5).randbytes(3_000_000)


@pytest.fixture
def server(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(pull_module, "WAITS", (0.01, 0.01, 0.01))
    with hub_server() as server:
        server.repos[NAME] = Repo({"thing-Q4_0.gguf": data, "other-file.txt": b"x"})
        yield server


def planned(server: HubServer, storage: Path, wanted: str = "Q4_0") -> tuple[Plan, Hub]:
    hub = Hub(server.url)
    found = hub.repository(REFERENCE)
    variant = choose(found, wanted)
    return Plan(found, variant, found.projector_for(variant), storage), hub


def fetched(
    server: HubServer, storage: Path, wanted: str = "Q4_0", **options: Any
) -> list[Progress]:
    told: list[Progress] = []
    pull(*planned(server, storage, wanted), told.append, **options)
    return told


def files(storage: Path) -> dict[str, int]:
    return {
        path.relative_to(storage).as_posix(): path.stat().st_size
        for path in storage.rglob("*")
        if path.is_file()
    }


def test_a_file_comes_whole(server: HubServer, tmp_path: Path, data: bytes) -> None:
    told = fetched(server, tmp_path)
    assert (tmp_path / NAME / "thing-Q4_0.gguf").read_bytes() == data
    assert files(tmp_path) == {f"{NAME}/thing-Q4_0.gguf": len(data)}
    assert told[0].stage == "downloading"
    assert told[-1] == Progress("checking", "thing-Q4_0.gguf", len(data), len(data), len(data))


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


# --- the network ---------------------------------------------------------------------------


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


def test_a_hub_that_asks_for_too_much_patience(server: HubServer, tmp_path: Path) -> None:
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
    monkeypatch.setattr("gateway.models.hub_client._AT_ONCE", 1_000_000)
    fetched(server, tmp_path)
    assert server.starts() == [0, 1_000_000, 2_000_000]
    assert (tmp_path / NAME / "thing-Q4_0.gguf").read_bytes() == data


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(HubFailed, match=r"127\.0\.0\.1 cannot be reached .* HF_ENDPOINT"):
        Hub("http://127.0.0.1:9").repository(REFERENCE)


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "kind", "says"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, NotFound, "no repository me/thing-GGUF, or it is"),
        (404, {}, NotFound, "no repository me/thing-GGUF"),
        (401, {"X-Error-Code": "GatedRepo"}, HubRefuses, "gated: accept its terms at http.*HF_TOK"),
        (403, {}, HubRefuses, "without a token: set HF_TOKEN"),
        (429, {"Retry-After": "9"}, HubFailed, "too many requests"),
        (503, {}, HubFailed, "busy or down"),
        (418, {}, HubFailed, "has answered 418"),
        (404, {"X-Error-Code": "RevisionNotFound"}, NotFound, "has no revision"),
    ],
)
def test_why_there_is_no_list(
    server: HubServer, status: int, headers: dict[str, str], kind: type[GatewayError], says: str
) -> None:
    server.refusals = [("/api/", status, headers)] * 9
    with pytest.raises(kind, match=says):
        Hub(server.url).repository(REFERENCE)


def test_a_gated_repository(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos[NAME].gated = "manual"
    with pytest.raises(HubRefuses, match="is gated: accept its terms"):
        fetched(server, tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HubRefuses, match="this token has no access") as refused:
        fetched(server, tmp_path)
    assert "hf_other" not in str(refused.value)
    assert files(tmp_path) == {}
    monkeypatch.setenv("HF_TOKEN", "hf_let_in")
    fetched(server, tmp_path)
    # What delivers the files is another host: it never sees the token.
    tokens = {one.token for one in server.asked if one.path.startswith("/cdn/")}
    assert tokens == {None}


def test_a_wrong_token(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    message = {"X-Error-Message": "Invalid credentials in Authorization header"}
    server.refusals = [("/api/", 401, message)]
    with pytest.raises(HubRefuses, match="does not take this token") as refused:
        Hub(server.url).repository(REFERENCE)
    assert "hf_wrong" not in str(refused.value)


def test_a_token_that_is_none(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("hf_sec\x01ret", "hf_s\u00e9cret"):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(GatewayError) as refused:
            Hub(server.url).repository(REFERENCE)
        assert "hf_s" not in str(refused.value)
        assert "HF_TOKEN" in str(refused.value)


def test_what_is_no_hub(server: HubServer) -> None:
    server.repos[NAME].files = {"README.md": b""}
    assert Hub(server.url).repository(REFERENCE).variants == ()
    hub = Hub(f"{server.url}/cdn/{NAME}/resolve/README.md?")
    with pytest.raises(HubFailed, match="cannot be understood"):
        hub.repository(REFERENCE)


# --- lies ----------------------------------------------------------------------------------


def test_wrong_bytes_get_no_name(server: HubServer, tmp_path: Path) -> None:
    server.damage = lambda path, data: data[:-1] + b"?"
    with pytest.raises(WrongHash, match="deleted: the same again fetches it anew"):
        fetched(server, tmp_path)
    assert files(tmp_path) == {}


def test_more_than_there_should_be_is_not_written(server: HubServer, tmp_path: Path) -> None:
    listed = {"size": 1000}
    server.repos[NAME].listed = {"thing-Q4_0.gguf": listed}
    with pytest.raises(WrongHash, match="more of thing"):
        fetched(server, tmp_path)
    assert sum(files(tmp_path).values()) == 0


def test_no_hash_no_file(server: HubServer, tmp_path: Path) -> None:
    server.repos[NAME].listed = {"thing-Q4_0.gguf": {"lfs": None, "blobId": None}}
    with pytest.raises(HubFailed, match="does not say what hash"):
        fetched(server, tmp_path)
    assert files(tmp_path) == {}


def test_hostile_names_lead_nowhere(server: HubServer, tmp_path: Path) -> None:
    server.repos[NAME].files["../../../evil-Q8_0.gguf"] = b"x"
    found = Hub(server.url).repository(REFERENCE)
    assert [one.label for one in found.variants] == ["Q4_0"]


def test_a_link_in_the_place_of_a_part_is_not_followed(server: HubServer, tmp_path: Path) -> None:
    plan, hub = planned(server, tmp_path)
    part = plan.part(plan.files[0])
    part.parent.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    part.symlink_to(elsewhere)
    with pytest.raises(NotStored):
        pull(plan, hub, lambda _: None)
    assert not elsewhere.exists()


# --- the disk ------------------------------------------------------------------------------


def test_there_is_room_or_nothing_is_fetched(server: HubServer, tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    more = free.f_bavail * free.f_frsize * 2
    server.repos[NAME].listed = {"thing-Q4_0.gguf": {"size": more}}
    with pytest.raises(DiskFull, match=r"are still to come, and the disk of .* free: make room"):
        fetched(server, tmp_path)
    assert server.starts() == []


def test_a_file_too_large_for_its_disk(server: HubServer, tmp_path: Path, data: bytes) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_234_567, hard))
    try:
        with pytest.raises(DiskFull, match="larger than one may be"):
            fetched(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(files(tmp_path).values()) == [1_234_567]
    fetched(server, tmp_path)
    assert server.starts() == [0, 1_234_567]
    assert (tmp_path / NAME / "thing-Q4_0.gguf").read_bytes() == data


def test_a_disk_that_fills_up_meanwhile(
    server: HubServer, tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one: of two megabytes, in memory; where that may not be made, it is skipped."""
    storage = tmp_path / "small"
    storage.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(storage)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        with pytest.raises(DiskFull, match="still to come"):
            fetched(server, storage)
        assert server.starts() == []
        # Somebody else takes the room after it was seen to be free.
        monkeypatch.setattr(pull_module, "_SPARE", -(2**30))
        with pytest.raises(DiskFull, match=r"is full: make room there, and the same again goes on"):
            fetched(server, storage)
        assert not (storage / NAME / "thing-Q4_0.gguf").exists()
        subprocess.run(["mount", "-o", "remount,size=8m", str(storage)], check=True)
        fetched(server, storage)
        assert server.starts()[-1] > 1_000_000
        assert (storage / NAME / "thing-Q4_0.gguf").read_bytes() == data
    finally:
        subprocess.run(["umount", str(storage)], check=True)


def test_a_folder_that_may_not_be_written(server: HubServer, tmp_path: Path) -> None:
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


# --- other processes -----------------------------------------------------------------------

#: Fetches in a child for each line that it reads: only that child is killed.
_PULLS = """
    import os, sys
    from pathlib import Path
    from gateway.models.hub import Reference, choose
    from gateway.models.hub_client import Hub
    from gateway.models.pull import Plan, pull

    url, storage = sys.argv[1], Path(sys.argv[2])
    hub = Hub(url)
    found = hub.repository(Reference("me", "thing-GGUF"))
    plan = Plan(found, choose(found, "Q4_0"), None, storage)
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            pull(plan, hub, lambda _: None)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def has(file: Path, size: int) -> bool:
    return file.exists() and file.stat().st_size == size


class Pulls:
    """A process that fetches again and again."""

    def __init__(self, server: HubServer, storage: Path) -> None:
        self.process = subprocess.Popen(
            tied(sys.executable, "-c", textwrap.dedent(_PULLS), server.url, storage),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self) -> int:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return self._said()

    def ended(self) -> int:
        """Its exit status; negative: the signal."""
        return self._said()

    def _said(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def __enter__(self) -> Pulls:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait(20)


def test_killed_at_ten_random_bytes_it_ends_with_the_right_hash(
    server: HubServer, tmp_path: Path, data: bytes
) -> None:
    plan, _ = planned(server, tmp_path)
    place, part = plan.place(plan.files[0]), plan.part(plan.files[0])
    choice = random.SystemRandom()
    at, kills = 0, []
    with Pulls(server, tmp_path) as pulls:
        for _ in range(10):
            more = choice.randrange(1, (len(data) - at) // 3)
            at += more
            kills.append(at)
            server.holds = [more]
            pid = pulls.begin()
            wait_until(partial(has, part, at), 20, f"{at} bytes there")
            os.kill(pid, signal.SIGKILL)
            assert pulls.ended() == -signal.SIGKILL
            assert not place.exists()
        pulls.begin()
        assert pulls.ended() == 0
    assert server.starts() == [0, *kills]
    assert hashlib.sha256(place.read_bytes()).digest() == hashlib.sha256(data).digest()
    assert files(tmp_path) == {f"{NAME}/thing-Q4_0.gguf": len(data)}


def test_two_at_once_are_told_apart(server: HubServer, tmp_path: Path) -> None:
    plan, hub = planned(server, tmp_path)
    part = plan.part(plan.files[0])
    server.holds = [1000]
    with Pulls(server, tmp_path) as pulls:
        pid = pulls.begin()
        wait_until(partial(has, part, 1000), 20, "the first at work")
        with pytest.raises(AlreadyThere, match="another process"):
            pull(plan, hub, lambda _: None)
        os.kill(pid, signal.SIGKILL)
        pulls.ended()


def test_in_a_fresh_process(server: HubServer) -> None:
    """Where nothing of the hub's client has been imported by anybody else."""
    program = (
        "from gateway.models.hub_client import Hub\n"
        "from gateway.models.hub import Reference\n"
        "Hub('http://127.0.0.1:9').repository(Reference('me', 'r'))"
    )
    for env, says in (
        ({"HF_HUB_OFFLINE": "1"}, "BadRequest: HF_HUB_OFFLINE is set"),
        ({}, "Interrupted: 127.0.0.1 cannot be reached"),
    ):
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert says in run.stderr
