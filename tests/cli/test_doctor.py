"""``llm-gateway doctor`` on whole projects, with a gateway and without; what a report holds."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.tls import self_signed
from tests.harness import COMMAND, DEMO, DEMO_GGUF, FAKE, Served, project

pytestmark = pytest.mark.slow

PERSONALITY = "You are Isolde, the keeper of the seventh lighthouse, and you never tell its name."
#: Each planted somewhere, and never to be seen.
SECRETS = {
    "passphrase": "Xylophone-Quartz",
    "key of a model elsewhere": "upstream-secret-4711",
    "HF_TOKEN": "hf_PlantedTokenOfSomebody",
    "OTHER_API_KEY": "planted-environment-key",
    "env of a model": "planted-model-variable",
    "key in a log": "sk-plantedinlog0123456789",
    "header in a log": "plantedheadervalue",
    "tool": "opens the cellar of the Zugspitze observatory",
    "setParams": "Answer only in the dialect of the Zwischenwasser valley",
    "description": "the private bot of grandmother Eulalia",
    "user": "planteduser",
    "host": "secrethost.example.org",
    "personality": "Isolde",
    "part of a personality": "seventh lighthouse",
}


def doctor(
    config: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LLM_GATEWAY_")}
    return subprocess.run(
        [COMMAND, "doctor", "--config", str(config), *arguments],
        env={**clean, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )


def private(root: Path) -> None:
    for folder in (root, root / "conf", root / "data"):
        folder.chmod(0o700)
    (root / "data/models.json").chmod(0o600)


def test_doctor_reports_without_a_gateway(tmp_path: Path) -> None:
    models = {DEMO: {"params": {"model": DEMO_GGUF, "ctxSize": 512}}}
    config = project(tmp_path / "p", models, port=0)
    private(tmp_path / "p")
    done = doctor(config, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert set(told) == {"level", "seconds", "checks"}
    assert 0 < told["seconds"] < 40
    checks = {check["name"]: check for check in told["checks"]}
    assert list(checks) == [
        *("configuration", "llama-server", "flags", "devices", "memory", "disk", "clock", "port"),
        *("certificate", "reachable", "permissions", "cache", "gateway", "service", "model"),
    ]
    for check in told["checks"]:
        assert set(check) == {"name", "subject", "level", "what", "do"}
        assert check["level"] in ("ok", "warning", "error")
        assert bool(check["what"])
    assert checks["model"]["subject"] == DEMO
    # The clock is the machine's, and other gateways may run on it.
    ours = set(checks) - {"clock", "gateway"}
    assert {checks[name]["level"] for name in ours} == {"ok"}, told


def test_errors_are_its_exit_status(tmp_path: Path) -> None:
    models = {"gone": {"params": {"model": "gone.gguf"}}}
    config = project(tmp_path / "p", models, llama_server="/nowhere/llama-server", port=0)
    done = doctor(config, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1
    assert "x error   llama-server: llama_server: there is no file" in done.stdout
    assert "x error   model gone: params.model: the file" in done.stdout
    assert re.search(r"\d+ ok, .*, [3-9] errors \(", done.stdout)


def test_doctor_tells_of_a_broken_configuration(tmp_path: Path) -> None:
    config = project(tmp_path / "p", {})
    config.write_text("port: 99999\n")
    (tmp_path / "p/data/models.json").write_text("{,}")
    done = doctor(config, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    first = json.loads(done.stdout)["checks"][0]
    assert first["name"] == "configuration"
    assert "2 problems, the first: gateway.yaml: port" in first["what"]


def test_doctor_reaches_a_gateway_by_the_name_in_its_certificate(
    tmp_path: Path, serve: Callable[..., Served]
) -> None:
    """Over TLS, whose certificate is trusted as clients of this house trust it."""
    made = self_signed(["localhost"], tmp_path / "p/ssl")
    tls = {"enabled": True, "private_key": str(made.private_key)}
    tls |= {"certificate": str(made.certificate), "ca_chain": str(made.chain)}
    models = {DEMO: {"params": {"model": DEMO_GGUF, "ctxSize": 512}}}
    config = project(tmp_path / "p", models, port=0, tls=tls, allowed_hosts=["localhost"])
    private(tmp_path / "p")
    served = serve("--config", str(config))
    port = served.url.rpartition(":")[2]
    done = doctor(config, "--json", env={"LLM_GATEWAY_PORT": port})
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["reachable"]["level"] == "ok", checks["reachable"]
    assert f"https://localhost:{port}" in checks["reachable"]["what"]
    assert checks["port"]["what"] == f"our gateway listens at {served.url}"
    assert f"process {served.process.pid} is " in checks["gateway"]["what"]
    assert "for localhost, valid for 39" in checks["certificate"]["what"]


def test_the_report_holds_nothing_of_anybody(
    tmp_path: Path, serve: Callable[..., Served], subtests: pytest.Subtests
) -> None:
    """Planted wherever it could come from: settings, models, environment, logs, last errors."""
    home = tmp_path / "home/planteduser"
    root = home / "gateway"
    (home / "LLMs").mkdir(parents=True)
    (home / "LLMs/m.gguf").touch()
    host = SECRETS["host"]
    made = self_signed([host], root / "ssl")
    tls = {"enabled": False, "private_key": str(made.private_key)}
    tls |= {"certificate": str(made.certificate), "passphrase": SECRETS["passphrase"]}
    log = (
        f"error: failed at /home/planteduser/LLMs with {SECRETS['key in a log']}, "
        f"Authorization: Bearer {SECRETS['header in a log']} for {host}\n"
        "error: could not go on at: the seventh lighthouse, and you never tell its name\n"
        f"error: tool failed: {SECRETS['tool']}"
    )
    tool = {"name": "open", "description": SECRETS["tool"]}
    models: dict[str, Any] = {
        "dies": {"params": {"model": "m.gguf"}, "env": {"FAKE_EXIT": "1"}},
        "lives": {
            "params": {"model": "m.gguf"},
            "personalities": {
                "keeper": PERSONALITY,
                "cellar": {
                    "prompt": "You mind the cellar.",
                    "tools": [{"type": "function", "function": tool}],
                },
            },
            "setParams": {"system": SECRETS["setParams"]},
            "description": SECRETS["description"],
            "env": {"SOMETHING": SECRETS["env of a model"]},
        },
        "far": {"url": f"https://{host}/v1", "key": SECRETS["key of a model elsewhere"]},
        "gone": {"params": {"model": "gone.gguf"}, "extraArgs": ["--lora", f"{home}/l.gguf"]},
    }
    config = project(
        *(root, models),
        llama_server=str(FAKE),
        llm_storage="~/LLMs",
        tls=tls,
        allowed_hosts=[host],
        cors={"origins": [f"https://app.{host}"]},
    )
    env = {
        "HOME": str(home),
        "HF_TOKEN": SECRETS["HF_TOKEN"],
        "OTHER_API_KEY": SECRETS["OTHER_API_KEY"],
        "FAKE_SAYS": log,
    }
    served = serve("--config", str(config), env=env)
    for name in ("dies", "lives"):
        body = json.dumps({"model": name}).encode()
        headers = {"Authorization": f"Bearer {served.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{served.url}/loadModel", body, headers)
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.HTTPError as error:
            assert name == "dies"
            error.close()
    done = doctor(config, "--report", env=env)
    assert (done.returncode, done.stderr) == (1, "")
    text = done.stdout
    # It is of use...
    assert "model dies, " in text
    assert "- log: error: failed at ~/LLMs with ***, Authorization: Bearer *** for <host 1>" in text
    assert "- log: (left out: part of a prompt)" in text
    assert "- last error: " in text
    assert "- error: model gone: params.model: the file ~/LLMs/gone.gguf does not exist" in text
    assert "- tls.passphrase: ***" in text
    assert "- allowed_hosts: [<host 1>]" in text
    # ... and tells nothing.
    for what, secret in {**SECRETS, "our key": served.key, "home": str(home)}.items():
        with subtests.test(f"{what!r:.80}"):
            assert secret.lower() not in text.lower(), what


def test_it_fits_a_narrow_terminal(tmp_path: Path) -> None:
    config = project(tmp_path / "p", {}, port=0)
    main_end, terminal = pty.openpty()
    env = {**os.environ, "COLUMNS": "60", "TERM": "xterm-256color"}
    env.pop("NO_COLOR", None)
    command = [COMMAND, "doctor", "--config", "conf/gateway.yaml"]
    subprocess.run(command, stdout=terminal, stderr=terminal, cwd=config.parent.parent, env=env)
    os.close(terminal)
    out = b""
    while True:
        try:
            out += os.read(main_end, 65536)
        except OSError:
            break
    os.close(main_end)
    text = out.decode()
    assert "\x1b[32m\u2713 ok" in text
    assert "\x1b[33m! warning" in text
    lines = re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()
    # A path is not cut in two.
    assert all(len(line) <= 60 or " " not in line.strip() for line in lines)


def test_json_and_report_are_two_things(capsys: pytest.CaptureFixture[str]) -> None:
    from gateway.cli import main

    with pytest.raises(SystemExit, match="2"):
        main(["doctor", "--json", "--report"])
    assert "not allowed with argument" in capsys.readouterr().err
