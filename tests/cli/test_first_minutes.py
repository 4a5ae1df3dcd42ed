"""From a folder of GGUF files to an answer: three commands, Enter, and no editor."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from tests.harness import DEMO_GGUF
from tests.screen import at_terminal

pytestmark = pytest.mark.slow


@pytest.fixture
def newcomer(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has installed the gateway, and nothing else."""
    home = tmp_path / "home"
    home.mkdir()
    return {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "LLM_GATEWAY_PORT": "0",  # whatever else runs on this machine
    }


@pytest.fixture
def ggufs(tmp_path: Path) -> Path:
    """A folder as people have them, with one file in it."""
    package, _, name = DEMO_GGUF.removeprefix("package:").partition("/")
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.submodule_search_locations is not None
    folder = tmp_path / "LLMs"
    (folder / "bartowski").mkdir(parents=True)
    (folder / "bartowski" / name).symlink_to(Path(found.submodule_search_locations[0], name))
    return folder


def test_newcomer_gets_an_answer_by_init_serve_and_chat(
    newcomer: dict[str, str], ggufs: Path, tmp_path: Path
) -> None:
    here = tmp_path / "box"
    here.mkdir()
    with at_terminal("init", "--scan", ggufs, env=newcomer, cwd=here) as terminal:
        terminal.until(r"Write which into models\.json\? .*: *$")
        terminal.type("\n")
        assert terminal.ended() == 0
        assert "llm-gateway serve\n" in terminal.screen.text
        written = json.loads((here / "data/models.json").read_text())
        assert len(written.keys() - {"$schema"}) == 1
        # What the same command wrote a second before is nothing to keep.
        assert "models.json~" not in terminal.screen.text
        assert not (here / "data/models.json~").exists()
    with at_terminal("serve", env=newcomer, cwd=here) as serving:
        serving.until("listening on", 60)
        # So small a model may not find an end to its answer before its context is full.
        with at_terminal("chat", "--max-tokens", "100", env=newcomer, cwd=here) as terminal:
            terminal.until("^>$", 60)
            terminal.type("What is the capital of France?\n")
            seen = terminal.until(r"tokens/s, prompt: \d+ tokens(?:.*\n)+> *$", 110)
            # What a model of 135 million parameters says isn't always right, but it is English.
            answer = seen.partition("France?\n")[2]
            assert len(re.findall(r"\b[a-zA-Z]{2,}\b", answer.partition(" tokens, ")[0])) > 1
            terminal.type("\x04")
            assert terminal.ended() == 0
        serving.interrupt()
        assert serving.ended(60) in (0, 130)
