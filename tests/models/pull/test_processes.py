"""Fetching in processes that are killed, and in two at once."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest

from gateway.models.part_file import AlreadyThere
from gateway.models.pull import pull
from tests.harness import tied, wait_until
from tests.hub_server import HubServer
from tests.models.pull.fetching import NAME, files, planned

pytestmark = pytest.mark.slow


#: Fetches in a child for each line that it reads: only that child is killed.
_PULLS = """
    import os, sys
    from pathlib import Path
    from gateway.models.hub import Reference, choose
    from gateway.models.hub_client import Hub
    from gateway.models.pull import PullPlan, pull

    url, storage = sys.argv[1], Path(sys.argv[2])
    hub = Hub(url)
    found = hub.repository(Reference("me", "thing-GGUF"))
    plan = PullPlan(found, choose(found, "Q4_0"), None, storage)
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


def test_pull_works_in_a_fresh_process(server: HubServer) -> None:
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
