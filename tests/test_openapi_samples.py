"""The code that the OpenAPI document shows, run as it stands against a real gateway."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.clients import KEY
from gateway.clients.samples import BASE, Example, samples
from tests.harness import DEMO, Served
from tests.route_table import openapi

pytestmark = pytest.mark.slow

DOCUMENT = openapi()
NODE = shutil.which("node")
#: OpenAI's client for Node.js, where tests/clients are installed.
NODE_MODULES = Path(__file__).with_name("clients") / "node_modules"
#: Operations, and a word of what each prints; the first two with OpenAI's clients.
SHOWN = [
    ("POST", "/v1/chat/completions", ""),
    ("GET", "/v1/models", DEMO),
    ("POST", "/v1/messages/count_tokens", "input_tokens"),
    ("GET", "/admin/models/{name}", "params"),
    ("GET", "/admin/usage", "usage"),
    ("GET", "/ping", "pong"),
    ("POST", "/admin/keys", "llmgw_"),
]


def run(source: str, *command: str, served: Served, folder: Path) -> str:
    """What it prints."""
    source = source.replace(BASE, served.url).replace("Qwen3-8B", DEMO)
    done = subprocess.run(
        [*command, source],
        env={**os.environ, KEY: served.key},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{source}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
@pytest.mark.parametrize(("method", "path", "word"), SHOWN, ids=[path for _, path, _ in SHOWN])
def test_each_sample_runs(
    demo: Served, tmp_path: Path, method: str, path: str, word: str, language: str
) -> None:
    found = DOCUMENT["paths"][path][method.lower()]["x-codeSamples"]
    source = next(one["source"] for one in found if one["label"] == language)
    if language == "curl":
        if shutil.which("curl") is None:
            pytest.skip("no curl")
        source = source.replace("curl ", "curl --silent --show-error --fail-with-body ", 1)
        command = ["sh", "-c"]
    elif language == "Python":
        command = [sys.executable, "-c"]
    else:
        if NODE is None:
            pytest.skip("no node")
        if "openai" in source:
            if not (NODE_MODULES / "openai").is_dir():
                pytest.skip("no openai for Node.js: npm ci in tests/clients")
            (tmp_path / "node_modules").symlink_to(NODE_MODULES)
        command = [NODE, "--input-type=module", "--eval"]
    printed = run(source, *command, served=demo, folder=tmp_path)
    assert printed.strip()
    assert word in printed


def test_sample_with_quotes_and_shell_signs_is_escaped(tmp_path: Path) -> None:
    text = """it's "so": $HOME `id` \\ <b>${x} Grüße"""
    example = Example("POST", "/x", query={"q": "a b&c"}, body={"text": text})
    curl, python, javascript = (one["source"] for one in samples(example))
    said = subprocess.run(
        ["sh", "-c", f"curl() {{ for word; do printf '%s\\n' \"$word\"; done; }}; {curl}"],
        env={KEY: "k"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Authorization: Bearer k" in said
    assert f"{BASE}/x?q=a%20b%26c" in said
    assert json.loads(said[said.index("{") :])["text"] == text
    strings = {node.value for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Constant)}
    assert text in strings
    if NODE is not None:
        (tmp_path / "x.mjs").write_text(javascript)
        subprocess.run([NODE, "--check", str(tmp_path / "x.mjs")], check=True, timeout=60)
