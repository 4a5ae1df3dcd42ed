"""Codex, which sends two texts of a developer, and a chat template that takes one: Qwen 3.5's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.tried import tried
from tests.codex_cli import codex, texts_in
from tests.harness import DEMO_GGUF, Served, project

TEMPLATE = """\
{%- for message in messages %}
{%- if message.role == "system" and not loop.first %}
{{- raise_exception("System message must be at the beginning.") }}
{%- endif %}
{{- "<|im_start|>" + message.role + "\\n" + (message.content or "") + "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|im_start|>assistant\\n" }}{%- endif %}
"""


@tried("codex", "stream", "responses")
@pytest.mark.timeout(300)  # its own prompt is thousands of tokens long
def test_codex_is_answered(tmp_path: Path) -> None:
    (tmp_path / "strict.jinja").write_text(TEMPLATE)
    entry = {
        "params": {"model": DEMO_GGUF, "ctxSize": 8192, "nPredict": 20},
        "extraArgs": ["--chat-template-file", str(tmp_path / "strict.jinja")],
    }
    root = tmp_path / "box"
    box = Served(root, "--config", str(project(root, {"m": entry}, llama_server="auto")))
    try:
        events = codex(box, tmp_path)
    finally:
        box.stop()
    assert "turn.completed" in [event["type"] for event in events], events
    assert texts_in(events)
