"""The service under a systemd that waits for reloads, from 253 on (``Type=notify-reload``)."""

from __future__ import annotations

import json
import re

import pytest

from tests.harness import wait_until
from tests.service.machine import Machine
from tests.service.test_install import UNIT, chat
from tests.service.test_machine import drop_in, main_pid

MODELS = "/etc/llm-gateway/models.json"
SERVICE = "llm-gateway"
#: An answer that takes longer than systemd waits for the end, if it isn't told to wait.
LONG = {
    "model": "SmolLM2-135M",
    "stream": True,
    "max_tokens": 400,
    "ignore_eos": True,
    "messages": [{"role": "user", "content": "Tell me a story."}],
}

pytestmark = pytest.mark.timeout(900)


def names(debian: Machine) -> list[str]:
    said = debian.run(
        "curl", "-sS", "http://127.0.0.1:8080/models", "-H", f"Authorization: Bearer {debian.key}"
    ).stdout
    return [*json.loads(said)]


def test_unit_is_of_the_type_that_waits_and_the_gateway_answers(debian: Machine) -> None:
    version = re.match(r"systemd (\d+)", debian.run("systemctl", "--version").stdout)
    assert version is not None
    assert int(version[1]) >= 253
    assert debian.property("Type") == "notify-reload"
    assert debian.property("ExecReload") == ""
    assert debian.property("ReloadSignal") == "1"
    assert debian.run("systemd-analyze", "verify", UNIT).stderr == ""
    assert chat(debian, debian.key) == "length"


def test_sandbox_is_tight_by_this_systemds_measure(debian: Machine) -> None:
    debian.run("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", UNIT)


def test_reload_returns_when_everything_has_been_read(debian: Machine) -> None:
    before, pid = debian.run("cat", MODELS).stdout, main_pid(debian)
    models = json.loads(before)
    for number in range(8):
        models[f"new-{number}"] = {"params": models["SmolLM2-135M"]["params"]}
        debian.run("sh", "-c", f"cat > {MODELS} <<'E'\n{json.dumps(models)}\nE")
        debian.run("systemctl", "reload", SERVICE)
        # It has ended by RELOADING=1 with a time, and READY=1 after that (sd_notify(3)): systemd
        # would have failed it after a timeout if one were missing.
        assert debian.property("ActiveState") == "active"
        assert f"new-{number}" in names(debian)
    assert main_pid(debian) == pid
    told = debian.journal(SERVICE)
    assert told.count("Reloaded llm-gateway.service") >= 8
    debian.run("sh", "-c", f"cat > {MODELS} <<'E'\n{before}\nE")
    debian.run("systemctl", "reload", SERVICE)


def test_broken_edit_is_told_and_leaves_it_running(debian: Machine) -> None:
    before, known, pid = debian.run("cat", MODELS).stdout, names(debian), main_pid(debian)
    debian.run("sh", "-c", f"echo '{{' > {MODELS}")
    try:
        debian.run("systemctl", "reload", SERVICE)
        assert (debian.property("ActiveState"), main_pid(debian)) == ("active", pid)
        assert names(debian) == known
        assert chat(debian, debian.key) == "length"
        wait_until(
            lambda: "models.json is broken" in debian.journal(SERVICE), 20, "it is told in the log"
        )
    finally:
        debian.run("sh", "-c", f"cat > {MODELS} <<'E'\n{before}\nE")
        debian.run("systemctl", "reload", SERVICE)


def test_status_line_tells_address_and_models(debian: Machine) -> None:
    chat(debian, debian.key)
    wait_until(
        lambda: "; loaded: SmolLM2-135M" in debian.property("StatusText"), 30, "the line is there"
    )
    assert debian.property("StatusText").startswith("listening on http://127.0.0.1:8080")


def test_gateway_that_hangs_is_replaced(debian: Machine) -> None:
    with drop_in(debian, "watchdog", "[Service]\nWatchdogSec=3s"):
        debian.run("systemctl", "restart", SERVICE)
        before = main_pid(debian)
        debian.run("kill", "-STOP", str(before))
        wait_until(lambda: main_pid(debian) not in (0, before), 60, "it was replaced")
        assert chat(debian, debian.key) == "length"
    debian.run("systemctl", "restart", SERVICE)


def test_answer_that_takes_longer_than_a_stop_may_is_waited_for(debian: Machine) -> None:
    with drop_in(
        debian,
        "short",
        "[Service]\nTimeoutStopSec=2s\nEnvironment=LLM_GATEWAY_SHUTDOWN_TIMEOUT=300s",
    ):
        debian.run("systemctl", "restart", SERVICE)
        chat(debian, debian.key)
        ask = (
            f"curl -sSN http://127.0.0.1:8080/v1/chat/completions -d '{json.dumps(LONG)}' -H "
            f"'Authorization: Bearer {debian.key}' -H 'Content-Type: application/json'"
        )
        debian.run(
            "sh", "-c", f"({ask} > /tmp/answer 2>&1; echo end >> /tmp/answer) > /dev/null 2>&1 &"
        )
        wait_until(
            lambda: "data: " in debian.run("cat", "/tmp/answer", check=False).stdout, 60, "it began"
        )
        stopped = debian.run("systemctl", "stop", "llm-gateway.socket", SERVICE)
        assert stopped.returncode == 0
        wait_until(
            lambda: debian.run("tail", "-n1", "/tmp/answer").stdout == "end\n", 240, "curl ended"
        )
        answer = debian.run("cat", "/tmp/answer").stdout
        assert "data: [DONE]" in answer, answer[-500:]
        assert debian.property("Result") == "success"
        assert "timed out" not in debian.journal(SERVICE)
    debian.run("systemctl", "start", "llm-gateway.socket", SERVICE)
