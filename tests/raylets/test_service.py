"""`node head --service` and `node join --service` in a machine with a real systemd."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import wait_until
from tests.service.conftest import PROGRAM
from tests.service.machine import Machine, install, machine, why_not

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

GATEWAY = f"{PROGRAM}/bin/llm-gateway"
CONFIG = "/etc/llm-gateway/gateway.yaml"
HEAD = "127.0.0.2"
UNITS = ("llm-gateway-head", "llm-gateway-node")


@pytest.fixture
def booted(tmp_path: Path) -> Iterator[Machine]:
    venv = install(tmp_path, PROGRAM)
    with machine(tmp_path, read_only={venv: PROGRAM}) as made:
        yield made


def test_a_head_and_a_node_are_services_and_leave_nothing(booted: Machine) -> None:
    headed = booted.run(GATEWAY, "node", "head", "--service", "--host", HEAD, "--port", "6400")
    assert f"llm-gateway node join {HEAD}:6400" in headed.stdout
    token = "/var/lib/llm-gateway/cluster/token"
    assert booted.run("stat", "-c", "%U %a", token).stdout == "llm-gateway 600\n"
    booted.run("cp", token, "/root/token")
    joined = booted.run(
        *(GATEWAY, "node", "join", f"{HEAD}:6400", "--name", "attic", "--host", "127.0.0.3"),
        *("--service", "--token-file", "/root/token"),
    )
    assert f"attic has joined {HEAD}:6400" in joined.stdout
    assert [booted.property("ActiveState", unit) for unit in UNITS] == ["active", "active"]

    # The gateway's own service uses Ray beside it, though it may write nowhere but in its folders.
    booted.run("sed", "-i", "/^cluster: null/d", CONFIG)
    booted.run("sed", "-i", f"1i cluster: {{address: '{HEAD}:6400'}}", CONFIG)
    booted.run("llm-gateway", "service", "install")

    def is_up() -> bool:
        told = booted.run("llm-gateway", "node", "list", "--json", "--config", CONFIG).stdout
        return [one["name"] for one in json.loads(told)["nodes"] if one["up"]] == ["attic"]

    wait_until(is_up, 60, "the gateway knows the node")
    booted.run("systemctl", "restart", "llm-gateway-head")
    wait_until(is_up, 60, "the gateway knows the node again")

    booted.run("llm-gateway", "node", "leave")
    assert [booted.property("LoadState", unit) for unit in UNITS] == ["not-found", "not-found"]
    assert booted.property("ActiveState") == "active"
    left = booted.run("pgrep", "-fa", "raylet|gcs_server|ray::", check=False).stdout
    assert left == ""
    again = booted.run("llm-gateway", "node", "leave", check=False)
    assert (again.returncode, "no part of a cluster" in again.stderr) == (1, True)


def test_a_node_that_cannot_join_is_told_why(booted: Machine) -> None:
    booted.run("sh", "-c", "echo a-token-that-is-of-no-use >/root/token")
    words = ("join", f"{HEAD}:6400", "--name", "attic", "--host", "127.0.0.3", "--service")
    failed = booted.run(GATEWAY, "node", *words, "--token-file", "/root/token", check=False)
    assert failed.returncode == 1
    assert f"nothing listens at {HEAD}:6400" in failed.stderr
