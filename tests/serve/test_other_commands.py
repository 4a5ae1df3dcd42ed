"""The other commands, beside `llm-gateway serve`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.harness import (
    COMMAND,
    DEMO,
    FAKE,
    fake_model,
    project,
    wait_until,
)
from tests.serve.processes import Serve
from tests.test_demo import get


def llm_gateway(*arguments: str, cwd: Path, seconds: float = 30) -> tuple[int, str, str]:
    done = subprocess.run(
        [COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=seconds
    )
    return done.returncode, done.stdout, done.stderr


def test_check_lists_every_problem(tmp_path: Path, subtests: pytest.Subtests) -> None:
    models = {
        "lost": {"params": {"model": "a\\b.gguf"}},
        "odd": {"params": {"model": "package:nothing/x.gguf", "instruct": True}},
    }
    config = project(tmp_path / "p", models, llama_server="/nowhere/llama-server")
    code, out, err = llm_gateway("check", "--config", str(config), cwd=tmp_path)
    assert code == 1
    assert "llama_server" in out
    assert "lost.params.model" in out
    assert "a/b.gguf" in out
    assert "odd.params.model" in out
    assert "instruct has no effect" in err
    config.write_text("port: many\nhots: x\ntls: {enabled: maybe}\n")
    code, out, err = llm_gateway("check", "--config", str(config), cwd=tmp_path)
    assert code == 1
    for key in ("port", "hots", "tls.enabled", "lost.params.model"):
        with subtests.test(f"{key!r:.80}"):
            assert key in out
    assert "Traceback" not in err


def test_init_makes_a_project_that_checks_and_serves(serve: Serve, tmp_path: Path) -> None:
    code, _, err = llm_gateway("init", "new", cwd=tmp_path)
    assert code == 0, err
    config = str(tmp_path / "new/conf/gateway.yaml")
    code, out, _ = llm_gateway("check", "--config", config, cwd=tmp_path)
    assert code == 0, out
    served = serve("--config", config)
    assert get(served, "/models") == (200, [DEMO])
    code, out, _ = llm_gateway("models", "--config", config, cwd=tmp_path)
    assert code == 0
    assert DEMO in out
    assert "stopped" in out
    assert "pirate" in out
    code, out, _ = llm_gateway("status", "--config", config, cwd=tmp_path)
    assert code == 0
    assert "in flight: 0" in out
    served.stop()
    code, _, err = llm_gateway("status", "--config", config, cwd=tmp_path)
    assert code == 1
    assert "no gateway is running" in err


def test_commands_say_that_models_json_is_broken(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    served = serve("--config", str(config))
    assert get(served, "/models") == (200, ["m"])
    file = tmp_path / "p/data/models.json"
    file.write_text('{"m": {')
    served.wait_for(r"(models.json is broken: the last good one stays in use)", served.log)
    code, out, err = llm_gateway("models", "--config", str(config), cwd=tmp_path)
    assert (code, [line.split()[:2] for line in out.splitlines()][1:]) == (0, [["m", "stopped"]])
    assert "is not valid JSON" in err
    assert "the models that the running gateway goes on with" in err
    code, out, _ = llm_gateway("status", "--once", "--config", str(config), cwd=tmp_path)
    assert code == 0
    assert "models.json is broken, the last good one stays in use" in out
    assert str(file) in out
    served.stop()
    code, out, err = llm_gateway("models", "--config", str(config), cwd=tmp_path)
    assert (code, out) == (1, "")
    assert "is not valid JSON" in err


def test_keys_made_beside_a_running_gateway_work_at_once(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    served = serve("--config", str(config))
    assert served.key
    wait_until(lambda: get(served, "/ready", key="-")[0] == 200, 10, "ready")
    code, out, _ = llm_gateway("keys", "create", "app", "--config", str(config), cwd=tmp_path)
    assert code == 0
    key = out.splitlines()[-1]
    assert get(served, "/models", key=key) == (200, ["m"])
    assert get(served, "/chat/errors", key=key)[0] == 403
    old = tmp_path / "authKeys.json"
    old.write_text(json.dumps({"an-old-plaintext-key": {"name": "old app"}}))
    code, _, err = llm_gateway("keys", "import", str(old), "--config", str(config), cwd=tmp_path)
    assert code == 0, err
    assert get(served, "/models", key="an-old-plaintext-key") == (200, ["m"])
    code, out, _ = llm_gateway("keys", "list", "--config", str(config), cwd=tmp_path)
    assert key not in out
    identity = next(line.split()[0] for line in out.splitlines() if " app " in line)
    code, _, err = llm_gateway("keys", "revoke", identity, "--config", str(config), cwd=tmp_path)
    assert code == 0, err
    assert get(served, "/models", key=key)[0] == 401
