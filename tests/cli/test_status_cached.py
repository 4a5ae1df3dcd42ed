"""`llm-gateway status` tells where cached tokens were, with the bundled llama-server."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import COMMAND, DEMO_GGUF, Served, project
from tests.screen import at_terminal

pytestmark = pytest.mark.slow

QUESTION = "Tell me about the old cat, the green hill and the dogs that ran over it, please."


@pytest.fixture
def config(tmp_path: Path) -> Path:
    entry = {"params": {"model": DEMO_GGUF, "ctxSize": 1024, "threads": 1}}
    cache = {"enabled": True, "min_tokens": 16}
    return project(tmp_path / "p", {"demo": entry}, llama_server="auto", cache=cache)


@pytest.fixture
def asked(config: Path) -> Iterator[Path]:
    """The configuration of a gateway that was asked the same thrice, with an unload in between."""
    served = Served(config.parent.parent, "--config", str(config))
    try:
        assert served.url
        chat = ("chat", "--max-tokens", "2", "demo", QUESTION)
        for name, *rest in (chat, chat, ("unload", "demo"), chat):
            said = [COMMAND, name, "--config", str(config), *rest]
            subprocess.run(said, check=True, capture_output=True, timeout=120)
        yield config
    finally:
        assert served.stop() == 0


@pytest.mark.parametrize("columns", [80, 120])
def test_requests_tell_where_their_prompts_were(asked: Path, columns: int) -> None:
    with at_terminal("status", "--once", "--config", asked, columns=columns, lines=40) as terminal:
        assert terminal.ended() == 0
        rows = terminal.screen.rows
    assert max(map(len, rows)) <= columns
    (model,) = [row for row in rows if row.startswith("demo")]
    assert re.search(r" \d+ \d+% ", model), "of its prompts, how much was cached"
    if columns == 120:
        (head,) = [row for row in rows if "SPARED" in row]
        assert re.search(r" \d\.\d s$", model[: head.index("SPARED") + len("SPARED")])
    (head,) = [row for row in rows if row.lstrip().startswith("TIME")]
    ended = [row for row in rows if re.match(r"\d\d:\d\d:\d\d ", row)]
    end = head.index("CACHED") + len("CACHED")
    words = [row[:end].split()[-2:] for row in ended]
    assert [one[1] for one in words[:2]] == ["disk", "slot"], "the newest first"
    assert words[2][1] == "0"
    assert min(int(tokens) for tokens, _ in words[:2]) > 16


def test_status_for_programs_has_them_too(asked: Path) -> None:
    said = [COMMAND, "status", "--json", "--config", str(asked)]
    status = json.loads(subprocess.run(said, check=True, capture_output=True, timeout=60).stdout)
    recent = [one["cached_from"] for one in status["requests"]["recent"]]
    assert recent == [None, "slot", "disk"]
    (model,) = status["models"]
    assert (model["prompt_cache"]["hits"], model["prompt_cache"]["slot_hits"]) == (1, 1)
