"""`llm-gateway service` in a machine with a real systemd."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.harness import wait_until
from tests.service.conftest import PROGRAM
from tests.service.machine import Machine, why_not

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

GATEWAY = f"{PROGRAM}/bin/llm-gateway"
CONFIG = "/etc/llm-gateway/gateway.yaml"
UNIT = "/etc/systemd/system/llm-gateway.service"
ASK = {"model": "SmolLM2-135M", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}


def chat(machine: Machine, key: str, port: int = 8080) -> str:
    """Ask the demo model; return why it stopped."""
    answer = machine.run(
        "curl", "-sS", f"http://127.0.0.1:{port}/v1/chat/completions",
        "-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json",
        "-d", json.dumps(ASK),
    ).stdout  # fmt: skip
    return str(json.loads(answer)["choices"][0]["finish_reason"])


def key_in(output: str) -> str:
    found = re.search(r"^  (llmgw_\w+)$", output, re.MULTILINE)
    assert found, output
    return found[1]


def listeners(machine: Machine) -> set[str]:
    """The addresses that systemd listens on for the gateway."""
    lines = machine.run("ss", "-Htlnp").stdout.splitlines()
    return {line.split()[3] for line in lines if '"systemd"' in line and "llm-gateway" in line}


def test_service_is_installed_changed_and_removed_by_its_commands(
    bare: tuple[Machine, Path],
) -> None:
    machine, venv = bare

    # Nothing is done in a dry run, and everything is told.
    said = machine.run(GATEWAY, "service", "install", "--dry-run").stdout
    assert UNIT in said
    assert CONFIG in said
    machine.run("test", "!", "-e", UNIT, "-a", "!", "-e", CONFIG)

    # Installed: it answers with the key that was shown, and no other user reads anything.
    said = machine.run(GATEWAY, "service", "install").stdout
    key = key_in(said)
    assert chat(machine, key) == "length"
    assert listeners(machine) == {"127.0.0.1:8080"}
    assert machine.run("stat", "-c", "%U:%G %a", CONFIG).stdout == "root:llm-gateway 640\n"
    secrets = "/etc/llm-gateway/environment"
    assert machine.run("stat", "-c", "%U %a", secrets).stdout == "root 600\n"
    assert machine.run("systemctl", "is-enabled", "llm-gateway").stdout == "enabled\n"

    # Its command is on root's PATH, and doesn't take itself for a new version.
    assert machine.run("llm-gateway", "service", "status").stdout.count("active (running)") == 1
    again = machine.run("llm-gateway", "service", "install").stdout
    assert "kept     /usr/local/bin/llm-gateway" in again
    assert not re.search("^(wrote|updated|linked)", again, re.MULTILINE), again
    refused = machine.run("llm-gateway", "service", "upgrade", check=False)
    assert (refused.returncode, f"`sudo {GATEWAY} service upgrade`" in refused.stderr) == (1, True)
    machine.run("test", "!", "-e", "/var/lib/llm-gateway/first-admin-key.txt")

    # At a terminal, what is long is cut to its width, but for systemd's own line about the unit.
    for columns in (80, 120):
        shown = machine.at_terminal("llm-gateway", "service", "status", columns=columns)
        assert any("Active: active (running)" in line for line in shown), shown
        assert any("serve" in line or line.endswith("\N{HORIZONTAL ELLIPSIS}") for line in shown)
        wide = [line for line in shown if len(line) > columns and "Loaded: loaded" not in line]
        assert not wide, wide
    for command in (("restart",), ("install", "--dry-run"), ("uninstall", "--dry-run")):
        shown = machine.at_terminal("llm-gateway", "service", *command, columns=80)
        assert max(map(len, shown)) <= 80, shown
    # The log is whole there, as it is elsewhere.
    logs = machine.at_terminal("llm-gateway", "service", "logs", "--lines=40", columns=80)
    assert any(
        "gateway.cli.serve: settings: /etc/llm-gateway/gateway.yaml; models: " in line
        and line.endswith("/etc/llm-gateway/models.json")
        for line in logs
    ), logs

    # Commands find the service's own keys.
    assert "admin" in machine.run(GATEWAY, "keys", "list").stdout

    # Once more: nothing is restarted.
    pid = machine.property("MainPID")
    said = machine.run(GATEWAY, "service", "install").stdout
    assert machine.property("MainPID") == pid, said

    # Another port: the socket follows, the key stays.
    machine.run("sed", "-i", "s/^port: .*/port: 9090/", CONFIG)
    machine.run(GATEWAY, "service", "install")
    assert listeners(machine) == {"127.0.0.1:9090"}
    assert chat(machine, key, 9090) == "length"

    # An edited unit stays as it is; ours lies beside it.
    machine.run("sh", "-c", f"echo '# mine' >> {UNIT}")
    assert "which was edited" in machine.run(GATEWAY, "service", "install").stdout
    machine.run("grep", "-q", "^# mine$", UNIT)
    machine.run("test", "-e", f"{UNIT}.new")

    # A configuration that is wrong: told, and the service goes on.
    pid = machine.property("MainPID")
    machine.run("sed", "-i", "s/^port:/prt:/", CONFIG)
    failed = machine.run(GATEWAY, "service", "upgrade", check=False)
    assert (failed.returncode, "did you mean 'port'?" in failed.stderr) == (1, True)
    assert machine.property("MainPID") == pid
    machine.run("sed", "-i", "s/^prt:/port:/", CONFIG)

    # A new version that doesn't start: the one before runs again.
    (serve,) = venv.glob("lib/python*/site-packages/gateway/cli/serve.py")
    right = serve.read_text()
    serve.write_text(right.replace("    gc.disable()", '    raise RuntimeError("broken")', 1))
    failed = machine.run(GATEWAY, "service", "upgrade", check=False)
    assert failed.returncode == 1
    assert "broken" in failed.stderr
    assert "runs again" in failed.stderr
    assert chat(machine, key, 9090) == "length"
    before = machine.run("readlink", "/opt/llm-gateway/venv").stdout

    # A good one: it runs.
    serve.write_text(f"{right}\n# a new version\n")
    machine.run(GATEWAY, "service", "upgrade")
    assert machine.run("readlink", "/opt/llm-gateway/venv").stdout != before
    assert chat(machine, key, 9090) == "length"

    # Saved, lost with the machine, and restored on an empty one.
    machine.run(GATEWAY, "backup", "/root/box.backup")
    machine.run(GATEWAY, "service", "uninstall")
    machine.run("rm", "-r", "/etc/llm-gateway", "/var/lib/llm-gateway")
    machine.run(GATEWAY, "restore", "/root/box.backup", "--config", CONFIG)
    machine.run(GATEWAY, "service", "install")
    assert chat(machine, key, 9090) == "length"

    # Removed: data and configuration stay, and their places are told.
    said = machine.run(GATEWAY, "service", "uninstall").stdout
    assert "kept     /var/lib/llm-gateway" in said
    machine.run("test", "!", "-e", UNIT, "-a", "!", "-e", "/opt/llm-gateway/venv")
    machine.run("test", "!", "-L", "/usr/local/bin/llm-gateway")
    machine.run("test", "-e", CONFIG, "-a", "-e", "/var/lib/llm-gateway/gateway.db")
    assert machine.run("pgrep", "-f", "llm-gateway serve", check=False).stdout == ""

    # And back: the key is still good.
    machine.run(GATEWAY, "service", "install")
    assert chat(machine, key, 9090) == "length"


def test_user_has_a_service_without_root(bare: tuple[Machine, Path]) -> None:
    machine, _ = bare
    machine.run("useradd", "--create-home", "--uid", "1000", "me")
    machine.run("loginctl", "enable-linger", "me")
    wait_until(
        lambda: machine.property("ActiveState", "user@1000.service") == "active",
        20,
        "the user's service manager runs",
    )
    me = (
        "setpriv", "--reuid=1000", "--regid=1000", "--clear-groups",
        "env", "HOME=/home/me", "XDG_RUNTIME_DIR=/run/user/1000",
    )  # fmt: skip

    said = machine.run(*me, GATEWAY, "service", "install", "--user").stdout

    assert chat(machine, key_in(said)) == "length"
    assert listeners(machine) == {"127.0.0.1:8080"}
    machine.run(*me, GATEWAY, "service", "restart", "--user")
    assert "active (running)" in machine.run(*me, GATEWAY, "service", "status", "--user").stdout
    machine.run(*me, GATEWAY, "service", "uninstall", "--user")
    machine.run("test", "-e", "/home/me/.local/share/llm-gateway/gateway.db")
    assert machine.run("pgrep", "-f", "llm-gateway serve", check=False).stdout == ""


def test_command_that_needs_root_says_so(bare: tuple[Machine, Path]) -> None:
    machine, _ = bare

    failed = machine.run("setpriv", "--reuid=1000", GATEWAY, "service", "install", check=False)

    assert failed.returncode == 1
    assert "use sudo, or --user" in failed.stderr
