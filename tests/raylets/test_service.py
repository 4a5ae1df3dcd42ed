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
    # Its /etc is empty: a user's service manager needs these.
    shared = {Path(f"/etc/{name}"): f"/etc/{name}" for name in ("pam.d", "security")}
    with machine(tmp_path, read_only={venv: PROGRAM, **shared}) as made:
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
        known = json.loads(told)
        up = [one["name"] for one in known["nodes"] if one["up"]]
        return (known["cluster"]["problem"], up) == (None, ["attic"])

    wait_until(is_up, 60, "the gateway knows the node")
    booted.run("systemctl", "restart", "llm-gateway-head")
    wait_until(is_up, 60, "the gateway knows the node again")

    # A node that is removed stays ended.
    booted.run("llm-gateway", "node", "remove", "attic", "--config", CONFIG)
    node = UNITS[1]
    wait_until(lambda: booted.property("ActiveState", node) == "inactive", 60, "the node ends")
    assert booted.property("ExecMainStatus", node) == "3"
    assert booted.property("Result", node) == "success"
    assert "attic was removed from the cluster" in booted.journal(node)

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


def test_a_user_has_a_head_and_a_node_without_root(booted: Machine) -> None:
    booted.run("useradd", "--create-home", "--uid", "1000", "me")
    booted.run("loginctl", "enable-linger", "me")
    wait_until(
        lambda: booted.property("ActiveState", "user@1000.service") == "active",
        20,
        "the user's service manager runs",
    )
    me = (
        *("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "env"),
        *("HOME=/home/me", "XDG_RUNTIME_DIR=/run/user/1000"),
    )

    def state(unit: str) -> str:
        asked = (*me, "systemctl", "--user", "show", "--value", "--property=ActiveState", unit)
        return booted.run(*asked).stdout.strip()

    place = ("--host", HEAD, "--port", "6400")
    headed = booted.run(*me, GATEWAY, "node", "head", "--service", "--user", *place)
    assert f"llm-gateway node join {HEAD}:6400" in headed.stdout
    token = "/home/me/.local/share/llm-gateway/cluster/token"
    assert booted.run("stat", "-c", "%U %a", token).stdout == "me 600\n"
    joined = booted.run(
        *(*me, GATEWAY, "node", "join", f"{HEAD}:6400", "--name", "attic", "--host", "127.0.0.3"),
        *("--service", "--user", "--token-file", token),
    )
    assert f"attic has joined {HEAD}:6400" in joined.stdout
    assert [state(unit) for unit in UNITS] == ["active", "active"]
    booted.run(*me, GATEWAY, "node", "leave", "--user")
    assert [state(unit) for unit in UNITS] == ["inactive", "inactive"]
    assert booted.run("pgrep", "-fa", "raylet|gcs_server|ray::", check=False).stdout == ""
