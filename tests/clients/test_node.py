"""The clients of OpenAI, Anthropic and Ollama for Node.js, run by the scripts beside this."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.tried import tried
from tests.harness import Served
from tests.parrot_model import ANSWER, CITY, REPORT, THOUGHT, TOOL

HERE = Path(__file__).parent


def told_by(script: str, package: str, environ: dict[str, str]) -> Any:
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules" / package).is_dir():
        pytest.skip(f"needs node and {package}: npm --prefix tests/clients ci")
    done = subprocess.run(
        [node, str(HERE / script)],
        env={**os.environ, "TOOL": json.dumps(TOOL), **environ},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@tried(
    "openai-node",
    "chat",
    "stream",
    "tools",
    "responses",
    "completions",
    "embeddings",
    "models",
    "errors",
)
def test_openai_node_gets_answers(environ: dict[str, str]) -> None:
    told = told_by("openai_node.mjs", "openai", environ)
    for name in (
        *("chat", "responses", "stream", "output", "deltas", "streamed_output", "completion"),
    ):
        assert told[name] == ANSWER, name
    assert told["pieces"] > 3
    assert told["usage"] == 6
    assert (told["report"], told["asked"]) == (REPORT, [CITY["city"]])
    assert told["sizes"] == [384, 384]
    assert told["models"] == ["embed", "m", "m:pirate"]
    assert told["retrieved"] == "m:pirate"
    assert told["errors"] == [
        ["NotFoundError", 404, "model_not_found"],
        ["BadRequestError", 400, "context_length_exceeded"],
    ]
    assert told["aborted"]


@tried("anthropic-node", "chat", "stream", "tools", "errors")
def test_anthropic_node_gets_answers(box: Served) -> None:
    environ = {"ANTHROPIC_BASE_URL": box.url, "ANTHROPIC_API_KEY": box.key}
    told = told_by("anthropic_node.mjs", "@anthropic-ai/sdk", environ)
    assert told["message"] == told["streamed"] == ANSWER
    assert told["pieces"] > 3
    assert (told["reason"], told["input"], told["report"]) == ("tool_use", CITY, REPORT)
    assert told["tokens"] > 0
    assert told["error"] == ["NotFoundError", 404]


@pytest.fixture
def ollama_environ(box: Served) -> dict[str, str]:
    return {"OLLAMA_HOST": box.url, "KEY": box.key}


@tried(
    "ollama-node",
    *("chat", "stream", "tools", "thinking", "schema", "completions"),
    *("embeddings", "models", "errors"),
)
def test_ollama_node_gets_answers(ollama_environ: dict[str, str]) -> None:
    told = told_by("ollama_node.mjs", "ollama", ollama_environ)
    assert told["chat"] == told["stream"] == told["generated"] == ANSWER
    assert (told["count"], told["reason"]) == (6, "stop")
    assert told["pieces"] > 3
    assert told["thought"] == THOUGHT
    assert (told["call"], told["report"]) == (["weather", CITY], REPORT)
    assert set(json.loads(told["held"])) == {"a"}
    assert told["sizes"] == [64, 64]
    assert told["models"] == ["embed:latest", "m:latest", "m:pirate"]
    assert {"completion", "tools", "thinking"} <= set(told["capabilities"])
    assert "m:latest" in told["running"]
    assert told["version"]
    assert told["errors"] == [["ResponseError", 404], ["ResponseError", 401]]


@tried(
    "ai-sdk-ollama",
    *("chat", "stream", "tools", "thinking", "schema", "embeddings", "errors"),
)
def test_ai_sdk_gets_answers_by_its_provider_for_ollama(ollama_environ: dict[str, str]) -> None:
    told = told_by("ollama_ai_sdk.mjs", "ollama-ai-provider-v2", ollama_environ)
    assert told["chat"] == told["stream"] == ANSWER
    assert (told["tokens"], told["reason"]) == (6, "stop")
    assert told["pieces"] > 3
    assert told["report"] == told["streamed_report"] == REPORT
    assert told["asked"] == [CITY["city"]] * 2
    assert told["thought"] == THOUGHT
    assert told["city"] in ("Cairo", "Rome")
    assert told["sizes"] == [384, 384]
    assert told["error"] == ["AI_APICallError", 404]
