"""Clients whose stream begins with minutes of waiting, here seconds: a real llama-server, held up.

A heartbeat is due every half second, and the clients that count are told to wait for two.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.clients.tried import tried
from tests.codex_cli import codex, texts_in
from tests.harness import REPOSITORY, Served, project
from tests.parrot_model import ANSWER

HERE = Path(__file__).parent
#: Seconds that a model needs to start, after which one gives up, and between two heartbeats.
START, PATIENCE, BEAT = 5, 2.0, 0.5
#: llama-server, behind a sleep. (Without devices: as builds answer that don't know the question.)
SLOWLY = """#!/bin/sh
case "$*" in *--list-devices*) exit 1;; esac
sleep "${SLOWLY:-0}"
[ -z "$BROKEN" ] || { echo "error: the disk is full of holes" >&2; exit 3; }
exec %s -P %s "$@"
"""


@pytest.fixture(scope="module")
def boxes(
    tmp_path_factory: pytest.TempPathFactory, parrot_model: Path
) -> Iterator[Mapping[str, Served]]:
    """Two gateways: one that beats, and one that beats too slowly to be of use."""
    params = {"model": str(parrot_model), "ctxSize": 65536, "threads": 1}
    # The parrot takes each byte for a token, and answers with a call where there are tools.
    entry: dict[str, Any] = {
        "params": params,
        "env": {"SLOWLY": str(START)},
        "stripParams": ["tools"],
        "setParams": {"instructions": "Be brief."},
    }
    broken = {**entry, "env": {**entry["env"], "BROKEN": "1"}}
    started: dict[str, Served] = {}
    for name, beat in (("beats", BEAT), ("silent", 60)):
        root = tmp_path_factory.mktemp(name)
        program = root / "slowly"
        bundled = REPOSITORY / "gateway" / "backends" / "bundled.py"
        program.write_text(SLOWLY % (sys.executable, bundled))
        program.chmod(0o755)
        models = {"m": entry, "broken": broken}
        limits = {"heartbeat": f"{beat}s"}
        config = project(root, models, llama_server=str(program), limits=limits)
        started[name] = Served(root, "--config", str(config))
    yield started
    for served in started.values():
        served.stop()


@pytest.fixture
def box(boxes: Mapping[str, Served]) -> Served:
    """The one that beats, and nothing loaded."""
    return unloaded(boxes["beats"])


def unloaded(box: Served) -> Served:
    import urllib.request

    key = {"Authorization": f"Bearer {box.key}"}
    for model in ("m", "broken"):
        request = urllib.request.Request(f"{box.url}/unloadModel?model={model}", headers=key)
        with urllib.request.urlopen(request) as response:
            assert response.status == 200
    return box


def run(
    *command: str, env: Mapping[str, str], cwd: Path | None = None, seconds: float = 150
) -> Any:
    return subprocess.run(
        command,
        env={**os.environ, **env},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


# --- Codex -----------------------------------------------------------------------------------


#: It waits so many milliseconds for an event.
IDLE: dict[str, Any] = {"stream_idle_timeout_ms": int(PATIENCE * 1000)}


@tried("codex", "long waits")
def test_codex_waits_through_a_load(box: Served, tmp_path: Path) -> None:
    events = codex(box, tmp_path, **IDLE)
    assert texts_in(events) == [ANSWER], events
    assert events[-1]["type"] == "turn.completed"
    assert events[-1]["usage"]["output_tokens"] > 0


@tried("codex", "errors")
def test_codex_is_told_why_a_load_failed(box: Served, tmp_path: Path) -> None:
    events = codex(box, tmp_path, "broken", **IDLE)
    assert events[-1]["type"] == "turn.failed"
    assert "the disk is full of holes" in events[-1]["error"]["message"]


def test_codex_would_not_wait_in_silence(boxes: Mapping[str, Served], tmp_path: Path) -> None:
    """Nor for comments: that is what its patience counts."""
    events = codex(unloaded(boxes["silent"]), tmp_path, **IDLE)
    assert events[-1]["type"] == "turn.failed"
    assert "idle timeout" in events[-1]["error"]["message"]


# --- Go --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["go.mod", "old.mod"])
def go_client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program beside this with the client of today, and with that before 3.50."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("needs go")
    program = tmp_path_factory.mktemp("go") / "client"
    build = (go, "build", f"-modfile={request.param}", "-o", str(program), ".")
    built = run(*build, env={}, cwd=HERE / "go", seconds=500)  # the first time; then it is kept
    if "dial tcp" in built.stderr or "no such host" in built.stderr:
        pytest.skip(f"the modules of {request.param} are not here: {built.stderr}")
    assert built.returncode == 0, built.stderr
    return program


@tried("openai-go", "chat", "stream", "responses", "long waits")
@pytest.mark.timeout(600)  # with the client's own compilation
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_openai_go_waits_through_a_load(box: Served, go_client: Path, api: str) -> None:
    env = {"OPENAI_BASE_URL": f"{box.url}/v1", "OPENAI_API_KEY": box.key}
    done = run(str(go_client), api, env=env)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    if api == "chat":
        assert (told["chat"], told["chat_error"]) == (ANSWER, "")
    else:
        assert (told["output"], told["error"]) == (ANSWER, "")
        check_responses(told["kinds"], told["ids"])
        assert told["numbers"] == list(range(len(told["kinds"])))


def check_responses(kinds: list[str], ids: list[str]) -> None:
    """One response, that was waited for."""
    assert kinds[0] == "response.created"
    assert kinds.count("response.created") == kinds.count("response.completed") == 1
    assert kinds.count("response.queued") >= START / BEAT / 2
    assert len(set(ids)) == 1


# --- Node.js ---------------------------------------------------------------------------------


@tried("openai-node", "long waits")
@tried("anthropic-node", "long waits")
@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_node_clients_wait_through_a_load(box: Served, api: str) -> None:
    """openai and @anthropic-ai/sdk."""
    node = shutil.which("node")
    needed = HERE / "node_modules" / "@anthropic-ai" / "sdk", HERE / "node_modules" / "openai"
    if node is None or not all(folder.is_dir() for folder in needed):
        pytest.skip("needs node, openai and @anthropic-ai/sdk: npm --prefix tests/clients ci")
    env = {
        "OPENAI_BASE_URL": f"{box.url}/v1",
        "OPENAI_API_KEY": box.key,
        "ANTHROPIC_BASE_URL": box.url,
        "ANTHROPIC_API_KEY": box.key,
    }
    done = run(node, str(HERE / "slow.mjs"), api, env=env)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told.get("error") is None
    assert told["text"] == ANSWER
    if api == "responses":
        check_responses(told["kinds"], told["ids"])
    if api == "messages":
        assert told["kinds"][0] == "message_start"
