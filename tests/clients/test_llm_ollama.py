"""The ``llm`` command line with its plugin for Ollama."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.tried import tried
from tests.harness import Served
from tests.parrot_model import ANSWER, REPORT

LLM = Path(sys.executable).with_name("llm")
pytestmark = pytest.mark.skipif(
    not LLM.exists() or importlib.util.find_spec("llm_ollama") is None, reason="needs llm-ollama"
)
WEATHER = "def weather(city: str) -> str:\n    return f'40 degrees in {city}'\n"


@tried("llm-ollama", "chat", "stream", "tools", "embeddings", "models")
def test_llm_gets_answers_by_its_plugin_for_ollama(box: Served, tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "LLM_USER_PATH": str(tmp_path),
        "LLM_LOAD_PLUGINS": "llm-ollama",
        "OLLAMA_HOST": box.url,
        "OLLAMA_API_KEY": box.key,
    }

    def llm(*arguments: str) -> str:
        done = subprocess.run(
            [str(LLM), *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert "m:pirate" in llm("models", "list")
    assert llm("-m", "ollama/m:pirate", "hi") == ANSWER
    assert llm("-m", "ollama/m", "--no-stream", "hi") == ANSWER
    assert llm("-m", "ollama/m", "--functions", WEATHER, "Is it hot?") == REPORT
    assert len(json.loads(llm("embed", "-m", "ollama/embed", "-c", "hello"))) == 384
