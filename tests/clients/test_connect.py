"""Clients with the lines that ``llm-gateway connect`` prints, and the keys that it makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.tried import tried
from tests.codex_cli import run_codex, texts_in
from tests.harness import COMMAND, Served, project
from tests.parrot_model import ANSWER

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, parrot_model: Path) -> Iterator[Served]:
    """``m``, with room for Codex's prompt, each byte of which the parrot takes for a token.

    Where there are tools it would answer with a call, so that it is shown none.
    """
    root = tmp_path_factory.mktemp("connected")
    entry = {
        "params": {"model": str(parrot_model), "ctxSize": 65536, "threads": 1},
        "personalities": {"pirate": "Arr."},
        "stripParams": ["tools"],
        "setParams": {"instructions": "Be brief."},
    }
    config = project(root, {"m": entry, "other": entry}, llama_server="auto")
    served = Served(root, "--config", str(config))
    yield served
    served.stop()


def connected(box: Served, client: str, model: str) -> list[dict[str, Any]]:
    """The parts of ``client``'s configuration, with a key of its own."""
    assert box.url
    config = str(box.root / "conf/gateway.yaml")
    options = ("--config", config, "--model", model, "--create-key", "--json")
    told = subprocess.run(
        [COMMAND, "connect", client, *options], capture_output=True, text=True, check=True
    )
    shown = json.loads(told.stdout)
    assert shown["key"]["models"] == ["m"]
    return list(shown["parts"])


def in_shell(lines: str, *command: str, **environ: str) -> str:
    """What ``command`` prints in a shell where these lines were typed."""
    done = subprocess.run(
        ["sh", "-euc", f'{lines}\nexec "$@"', "sh", *command],
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@tried("codex", "stream", "responses")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", [(), ("--profile", "llm-gateway")])
def test_codex_answers_with_the_printed_lines(
    box: Served, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """In its config.toml, or in a file of their own, as the notes say."""
    config, key = connected(box, "codex", "m")
    name = f"{options[1]}.config.toml" if options else "config.toml"
    variable, _, value = key["text"].removeprefix("export ").strip().partition("=")
    events = run_codex(tmp_path, {name: config["text"]}, {variable: value}, *options)
    assert texts_in(events) == [ANSWER], events
    assert events[-1]["type"] == "turn.completed"


@tried("llm", "chat", "stream")
def test_llm_answers_with_the_printed_lines(box: Served, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("llm")
    if not program.exists():
        pytest.skip("needs llm")
    models, key, use = connected(box, "llm", "m:pirate")
    (tmp_path / "extra-openai-models.yaml").write_text(models["text"])
    # No plugins: the demo model's wheel is one, which asks for a binding of its own.
    environ = {"LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": "", "LLM": str(program)}
    lines = f'llm() {{ "$LLM" "$@"; }}\n{key["text"]}'
    assert in_shell(f"{lines}\n{use['text']}", "true", **environ).strip() == ANSWER


@tried("openai-node", "chat")
def test_openai_node_answers_with_the_printed_lines(box: Served) -> None:
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules" / "openai").is_dir():
        pytest.skip("needs node and openai: npm --prefix tests/clients ci")
    lines, example = connected(box, "openai-node", "m")
    program = HERE / "connected.mjs"  # beside the packages that it imports
    program.write_text(example["text"])
    try:
        assert in_shell(lines["text"], node, str(program)).strip() == ANSWER
    finally:
        program.unlink()


@tried("openai-python", "chat")
def test_openai_python_answers_with_the_printed_lines(box: Served) -> None:
    lines, example = connected(box, "openai-python", "m")
    assert in_shell(lines["text"], sys.executable, "-c", example["text"]).strip() == ANSWER
