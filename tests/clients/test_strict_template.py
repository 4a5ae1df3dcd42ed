"""Codex, which sends two texts of a developer, and a chat template that takes one: Qwen 3.5's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import DEMO_GGUF, Served, project

CODEX = Path(__file__).parent / "codex" / "node_modules" / ".bin" / "codex"
TEMPLATE = """\
{%- for message in messages %}
{%- if message.role == "system" and not loop.first %}
{{- raise_exception("System message must be at the beginning.") }}
{%- endif %}
{{- "<|im_start|>" + message.role + "\\n" + (message.content or "") + "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|im_start|>assistant\\n" }}{%- endif %}
"""


@pytest.mark.timeout(300)  # its own prompt is thousands of tokens long
def test_codex_is_answered(tmp_path: Path) -> None:
    if shutil.which("node") is None or not CODEX.exists():
        pytest.skip("needs node and @openai/codex: npm --prefix tests/clients/codex ci")
    (tmp_path / "strict.jinja").write_text(TEMPLATE)
    entry = {
        "params": {"model": DEMO_GGUF, "ctxSize": 8192, "nPredict": 20},
        "extraArgs": ["--chat-template-file", str(tmp_path / "strict.jinja")],
    }
    root = tmp_path / "box"
    box = Served(root, "--config", str(project(root, {"m": entry}, llama_server="auto")))
    try:
        home = tmp_path / "home"
        home.mkdir()
        (home / "config.toml").write_text(
            'model = "m"\n'
            'model_provider = "gateway"\n'
            "[model_providers.gateway]\n"
            'name = "gateway"\n'
            f'base_url = "{box.url}/v1"\n'
            'env_key = "GATEWAY_KEY"\n'
            'wire_api = "responses"\n'
            "request_max_retries = 0\n"
            "stream_max_retries = 0\n"
        )
        said = subprocess.run(
            [CODEX, "exec", "--json", "--skip-git-repo-check", "-s", "read-only", "Say hello."],
            env={**os.environ, "CODEX_HOME": str(home), "GATEWAY_KEY": box.key},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        box.stop()
    events = [json.loads(line) for line in said.stdout.splitlines() if line.startswith("{")]
    assert "turn.completed" in [event["type"] for event in events], said.stdout
    assert any(event.get("item", {}).get("type") == "agent_message" for event in events)
