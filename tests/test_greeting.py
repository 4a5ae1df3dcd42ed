"""What people see when `serve` starts: where it is, what it serves, how to get a model."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import greeting as greeting_module
from gateway.config.load import parse_settings
from gateway.greeting import greeting
from gateway.models.catalog import EMPTY, parse_catalog
from gateway.own_addresses import own_addresses
from tests.harness import COMMAND, FAKE, Served, fake_model, project, tied, wait_until
from tests.test_demo import call, get
from tests.web.built import ensure_built

pytestmark = pytest.mark.slow

Serve = Callable[..., Served]
HERE = "http://127.0.0.1:8080"
MODELS = json.dumps({f"model-{i}": {"params": {"model": "m.gguf"}} for i in range(5)})


CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def told(
    *urls: str, names: tuple[str, ...] = (), models: str | None = MODELS, **settings: object
) -> Any:
    catalog = EMPTY if models is None else parse_catalog(models)
    made = parse_settings(settings)
    return greeting(made, catalog, urls or (HERE,), Path("/etc/x.yaml"), names).splitlines()


def row(lines: list[str], label: str) -> str:
    (found,) = (line for line in lines if line.strip().startswith(label))
    return found.strip().removeprefix(label).strip()


def test_greeting_says_that_it_serves_this_machine_only() -> None:
    lines = told()
    assert row(lines, "on this machine") == HERE
    assert row(lines, "on the network") == "no: this machine only (host: 127.0.0.1)"
    assert row(lines, "serves") == "5 models: model-0, model-1, model-2 and 2 more"
    assert row(lines, "settings") == "/etc/x.yaml"
    assert len(lines) < 10


def test_with_no_model_there_are_three_ways(subtests: pytest.Subtests) -> None:
    lines = told(models=None, llm_storage="/srv/models")
    text = "\n".join(lines)
    for way in ("llm-gateway pull OWNER/REPO", "llm-gateway models scan", "models add FILE"):
        with subtests.test(f"{way!r:.80}"):
            assert way in text
    assert "/srv/models" in text
    assert len(lines) < 10
    assert max(map(len, lines)) <= 80


def test_greeting_shows_addresses_in_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        greeting_module, "own_addresses", lambda: ["192.0.2.7", "198.51.100.7", "2001:db8::7"]
    )
    v4, v6 = "http://192.0.2.7:8080, http://198.51.100.7:8080", "http://[2001:db8::7]:8080"
    assert row(told(host="0.0.0.0"), "on the network") == v4
    assert row(told("http://[::1]:8080", host="::"), "on the network") == v6
    both = told(HERE, "http://[::1]:8080", host=["0.0.0.0", "::"])
    assert row(both, "on the network") == f"{v4}, {v6}"
    one = told("http://203.0.113.9:8080", host="203.0.113.9")
    assert row(one, "on this machine") == row(one, "on the network") == "http://203.0.113.9:8080"
    secure = told(
        "https://127.0.0.1:8443",
        names=("box.lan",),
        host=["0.0.0.0", "::"],
        tls={"enabled": True, "public_port": 443},
    )
    network = "https://box.lan, https://192.0.2.7, https://198.51.100.7 and 1 more"
    assert row(secure, "on the network") == network
    monkeypatch.setattr(greeting_module, "own_addresses", list)
    assert row(told(host="0.0.0.0"), "on the network") == "this machine has no address there"


def test_own_addresses_can_be_bound(tmp_path: Path) -> None:
    import socket

    for address in own_addresses():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))


def test_only_lasting_ipv6_addresses_are_shown(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/if_inet6").write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "20010db8000000000000000000000001 02 40 00 00     eth0\n"
        "20010db8000000000000000000000002 02 40 00 01     eth0\n"  # temporary (RFC 8981)
        "20010db8000000000000000000000003 02 40 00 20     eth0\n"  # deprecated
        "fd000000000000000000000000000004 03 40 00 80  docker0\n"
        "fe800000000000000000000000000005 02 40 20 80     eth0\n"
    )
    found = [address for address in own_addresses(root=tmp_path) if ":" in address]
    assert found == ["2001:db8::1"]


def terminal(*command: str | Path, cwd: Path, until: str) -> tuple[str, int]:
    """What ``command`` shows in a terminal until ``until``, and its status after Ctrl-C."""
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if not k.startswith("LLM_GATEWAY_")}
    env |= {"XDG_DATA_HOME": str(cwd / "share"), "HOME": str(cwd)}
    env.pop("JOURNAL_STREAM", None)
    process = subprocess.Popen(
        tied(*command), cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + 30
    try:
        while until not in shown.decode(errors="replace"):
            assert time.monotonic() < deadline, shown
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        return shown.decode().replace("\r\n", "\n"), process.wait(20)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_first_start_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    config = project(tmp_path / "p", {})
    (tmp_path / "p/data/models.json").unlink()
    command = (COMMAND, "serve", "--port", "0", "--config", config)
    shown, status = terminal(*command, cwd=tmp_path, until="  curl ")
    assert status == 0
    assert "\x1b" not in shown
    before, _, block = shown.partition("\nAdmin key, shown only this once:\n")
    banner = [line for line in before.splitlines() if " INFO " not in line]
    assert banner[0].startswith("LLM-API Gateway ")
    assert len(banner) < 10
    assert f"  settings         {config}" in banner
    # There is nothing to chat with, so the line to try asks for the list.
    assert re.search(r"  curl http://127\.0\.0\.1:\d+/v1/models -H 'Authorization: ", block)
    loggers = set(re.findall(r"^\S+ \S+ [A-Z]+ (\w+)", shown, re.MULTILINE))
    assert loggers <= {"gateway"}


def test_models_that_come_later_are_taken_up(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {}, llama_server=str(FAKE))
    file = tmp_path / "p/data/models.json"
    file.unlink()
    served = serve("--config", str(config))
    assert get(served, "/v1/models") == (200, {"object": "list", "data": []})
    assert get(served, "/models") == (200, [])
    code, answer = call(served, "POST", "/v1/chat/completions", CHAT)
    assert (code, answer["error"]["code"]) == (404, "model_not_found")
    file.write_text(json.dumps({"m": fake_model(tmp_path)}))
    served.wait_for(r"models.json has changed: (m)\n", served.log)
    assert get(served, "/models") == (200, ["m"])
    assert served.stop() == 0


def test_models_in_a_folder_made_later_are_taken_up(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere/models.json"
    config = project(tmp_path / "p", {}, llama_server=str(FAKE), models_file=str(file))
    served = serve("--config", str(config))
    assert get(served, "/models") == (200, [])
    file.parent.mkdir()
    file.write_text(json.dumps({"m": fake_model(tmp_path)}))
    assert get(served, "/models") == (200, ["m"])  # a look at the list is a look at the file
    assert served.stop() == 0


def test_a_link_that_leads_nowhere_is_no_missing_file(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {})
    file = tmp_path / "p/data/models.json"
    file.unlink()
    file.symlink_to(tmp_path / "gone.json")
    served = serve("--config", str(config))
    assert served.ended() == 1
    assert "models.json: cannot be read: No such file" in "".join(served.log)


def test_a_key_that_nobody_could_read_is_kept(tmp_path: Path) -> None:
    """`llm-gateway serve | true`: it goes on, and the key is not lost."""
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    env = {k: v for k, v in os.environ.items() if k != "JOURNAL_STREAM"}
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        tied(COMMAND, "serve", "--port", "0", "--config", config),
        env=env,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    file = tmp_path / "p/data/first-admin-key.txt"
    try:
        wait_until(lambda: file.exists() and "\n" in file.read_text(), 20, "the key in a file")
    finally:
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert f"the first admin key is in {file}" in log
    assert "Traceback" not in log
    assert "BrokenPipe" not in log


@pytest.mark.parametrize("command", ["serve", "check"])
def test_missing_configuration_is_told_with_what_makes_one(tmp_path: Path, command: str) -> None:
    ended = subprocess.run(
        [COMMAND, command, "--config", "conf/none.yaml"],
        cwd=tmp_path,
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    said = ended.stderr if command == "serve" else ended.stdout
    assert ended.returncode == 1
    assert "conf/none.yaml: there is no such file; `llm-gateway init DIR` makes one" in said
    assert "Traceback" not in ended.stderr


def test_only_the_first_start_prints_a_link_with_the_key(serve: Serve, tmp_path: Path) -> None:
    """The key is in the fragment, and nowhere but on stdout: no log, here or below data/."""
    ensure_built()
    config = project(tmp_path / "p", {})
    served = serve("--config", str(config))
    link = served.wait_for(r"Open in a browser:\n\n  (http\S+)\n", served.out)
    served.wait_for(r"(curl )", served.out)
    assert link == f"{served.url}/#key={served.key}"
    address, _, fragment = link.partition("#")
    request = urllib.request.Request(address, headers={"Accept": "text/html"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert b"<title>LLM-API Gateway</title>" in answer.read()
    assert served.stop() == 0
    assert served.key not in "".join(served.log)
    kept = b"".join(
        file.read_bytes() for file in (tmp_path / "p/data").rglob("*") if file.is_file()
    )
    assert fragment.removeprefix("key=").encode() not in kept
    later = serve("--config", str(config))
    later.wait_for(r"(settings)", later.out)
    assert row("".join(later.out).splitlines(), "in a browser") == f"{later.url}/"
    assert "#key=" not in "".join(later.out)
    assert later.stop() == 0


def test_greeting_says_where_the_page_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting_module, "is_built", lambda: True)
    assert row(told(), "in a browser") == f"{HERE}/"
    assert row(told(page=False), "in a browser") == f"{HERE}/ui/"
    assert not [line for line in told(page=False, ui=False) if "browser" in line]
    monkeypatch.setattr(greeting_module, "is_built", lambda: False)
    how = f"{HERE}/ says how to build the page"
    assert row(told(), "in a browser") == f"{HERE}/ui/; {how}"
    assert row(told(ui=False), "in a browser") == how
