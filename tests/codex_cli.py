"""Codex with the configuration that ``llm-gateway connect`` prints, for tests/clients."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.clients import CLIENTS, KEY, ClientTarget
from tests.harness import Served

CODEX = Path(__file__).parent / "clients" / "codex" / "node_modules" / ".bin" / "codex"


def codex(box: Served, folder: Path, model: str = "m", **settings: int) -> list[dict[str, Any]]:
    """The events of ``codex exec``, which tries once; ``settings`` are more of its provider's."""
    config, *_ = CLIENTS["codex"].parts_for(ClientTarget(box.url, model))
    # The provider is the last table, so that they are lines of it.
    more = {"request_max_retries": 0, "stream_max_retries": 0, **settings}
    text = config.text + "".join(f"{name} = {value}\n" for name, value in more.items())
    return run_codex(folder, {"config.toml": text}, {KEY: box.key})


def run_codex(
    folder: Path, files: dict[str, str], environ: dict[str, str], *options: str
) -> list[dict[str, Any]]:
    """The same with these files in its home, and these variables."""
    if shutil.which("node") is None or not CODEX.exists():
        pytest.skip("needs node and @openai/codex: npm --prefix tests/clients/codex ci")
    home = folder / "home"
    home.mkdir()
    for name, text in files.items():
        (home / name).write_text(text)
    command: list[Any] = [
        CODEX,
        "exec",
        *options,
        "--json",
        "--skip-git-repo-check",
        "-s",
        "read-only",
    ]
    said = subprocess.run(
        [*command, "Say hello."],
        env={**os.environ, "CODEX_HOME": str(home), **environ},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=250,
    )
    events = [json.loads(line) for line in said.stdout.splitlines() if line.startswith("{")]
    assert events, said.stderr
    return events


def texts_in(events: list[dict[str, Any]]) -> list[str]:
    """What the agent said."""
    messages = (event.get("item", {}) for event in events)
    return [item["text"] for item in messages if item.get("type") == "agent_message"]
