"""`llm-gateway status` and `usage`, at a terminal and elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from gateway.cli.dashboard import print_status
from tests.harness import COMMAND, FAKE, Served, fake_model, opened, project
from tests.screen import Terminal, at_terminal

pytestmark = pytest.mark.slow

Serve = Callable[..., Served]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Not served yet."""
    os.mkfifo(tmp_path / "gate")
    writer = fake_model(tmp_path, chunks=3, gate=tmp_path / "gate")
    models = {
        "writer": writer,
        "broken": fake_model(tmp_path, exit=3),
        "a-model-with-a-rather-long-name-Q4_K_M": fake_model(tmp_path),
    }
    return project(tmp_path / "p", models, llama_server=str(FAKE))


def command(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    name, *rest = arguments
    return subprocess.run(
        [COMMAND, name, "--config", config, *rest],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextlib.contextmanager
def asking(config: Path, gate: Path) -> Iterator[IO[bytes]]:
    """A question whose answer has begun, and ends with the block."""
    chat = subprocess.Popen(
        [COMMAND, "chat", "--config", config, "writer", "Hello?"], stdout=subprocess.PIPE
    )
    assert chat.stdout is not None
    with chat.stdout as answer:
        assert answer.read(1)
        try:
            yield answer
        finally:
            with opened(gate):
                answer.read()
    assert chat.wait(20) == 0


def watching(config: Path, columns: int, lines: int) -> contextlib.AbstractContextManager[Terminal]:
    arguments = ("status", "--config", config, "--interval", "0.2")
    return at_terminal(*arguments, columns=columns, lines=lines)


def test_it_is_drawn_over(config: Path, serve: Serve, tmp_path: Path) -> None:
    """At a wide terminal: requests, the speed of their answers, errors; and then a narrow one."""
    assert serve("--config", str(config)).url
    assert command(config, "load", "broken").returncode == 1
    with watching(config, 120, 24) as terminal:
        screen = terminal.screen
        text = terminal.until(r"^broken +(backoff|failed)")
        assert screen.second
        assert not screen.cursor
        assert re.match(r"llm-gateway \S+   ready   up 0:00:\d\d   in flight: 0 .*machine +", text)
        assert re.search(r"^RAM +[━╸╺]+ +[\d.]+ of [\d.]+ GiB used \(\d+%\)", text, re.MULTILINE)
        assert "broken, last error: the llama-server of 'broken' exited with status 3" in text
        with asking(config, tmp_path / "gate"):
            terminal.until(r"^now +command line +writer +/v1/chat/completions +writing ")
            terminal.until(r"^writer +ready +\S+ +1/1 +0 ")
            terminal.resize(60, 16)
            terminal.until(r"^now +command line +writer +writing ")
        terminal.until(r"^\d\d:\d\d:\d\d +command line +writer +200 ")
        assert max(map(len, screen.rows)) <= 60
        assert "J" not in re.findall(r"\x1b\[\d*([A-Z])", screen.raw), "it is never cleared"
        terminal.interrupt()
        assert terminal.ended() == 0
        assert screen.text == ""


def test_status_goes_on_when_the_gateway_comes_back(config: Path, serve: Serve) -> None:
    first = serve("--config", str(config))
    assert first.url
    with watching(config, 80, 24) as terminal:
        terminal.until(r"^llm-gateway \S+   ready")
        first.stop(signal.SIGKILL)
        text = terminal.until(r"^away for \d+ s, looked for again: ")
        assert re.search(r"^writer +stopped", text, re.MULTILINE), "the last look stays"
        assert serve("--config", str(config)).url
        terminal.until(r"^llm-gateway \S+   ready")
        terminal.type("q")
        assert terminal.ended() == 0


def test_a_signal_leaves_the_terminal_as_it_was(config: Path, serve: Serve) -> None:
    assert serve("--config", str(config)).url
    with watching(config, 80, 24) as terminal:
        terminal.until(r"^llm-gateway \S+   ready")
        terminal.process.terminate()
        assert terminal.ended() == 128 + signal.SIGTERM


def test_status_says_that_no_gateway_runs(config: Path) -> None:
    with watching(config, 80, 24) as terminal:
        assert terminal.ended() == 1
        assert "1049" not in terminal.screen.raw
        assert terminal.screen.text.startswith("error: no gateway is running on")


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_dumb_terminal_gets_status_once_without_colours(
    config: Path, serve: Serve, env: dict[str, str]
) -> None:
    """A dumb terminal, which cannot be drawn over, gets it once."""
    assert serve("--config", str(config)).url
    with at_terminal("status", "--config", config, columns=80, env=env) as terminal:
        terminal.until(r"^writer +stopped")
        if "NO_COLOR" in env:
            terminal.interrupt()
        else:
            assert "\x1b" not in terminal.screen.raw
        assert terminal.ended() == 0
        assert not terminal.screen.styles


def test_status_and_usage_are_plain_for_programs(
    config: Path,
    serve: Serve,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    subtests: pytest.Subtests,
) -> None:
    assert serve("--config", str(config)).url
    with asking(config, tmp_path / "gate"):
        status = json.loads(command(config, "status", "--json").stdout)
        assert [one["stage"] for one in status["requests"]["under_way"]] == ["writing"]
    first = status["models"][0]
    first["last_error"] = "\x1b[31mred\nline"
    copied = {"state": "starting", "stage": "copying x.gguf from attic", "progress": 0.42}
    status["models"][1] |= copied | {"state_seconds": 3.2}
    print_status(status)
    told = capsys.readouterr().out
    assert r"last error: \x1b[31mred line" in told
    assert "copying 42% 3 s, x.gguf from attic" in told
    done = command(config, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for line in (r"llm-gateway \S+   ready .*in flight: 0", r"RAM: .* used", r"writer +ready"):
        with subtests.test(f"{line!r:.80}"):
            assert re.search(f"^{line}", done.stdout, re.MULTILINE)
    assert command(config, "status", "--interval", "0").stderr.startswith("error: --interval")

    (day,) = json.loads(command(config, "usage", "--by", "day", "--json").stdout)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", day["day"])
    counters = {"requests", "prompt_tokens", "completion_tokens", "cached_tokens"}
    assert day.keys() == {"day", *counters}
    assert command(config, "load", "a-model-with-a-rather-long-name-Q4_K_M").returncode == 0
    model = "a-model-with-a-rather-long-name-Q4_K_M"
    assert command(config, "chat", model, "Hello?").returncode == 0
    table = [line.split() for line in command(config, "usage", "--by", "model").stdout.splitlines()]
    assert table[0] == ["MODEL", "REQUESTS", "PROMPT", "CACHED", "ANSWER"]
    assert {table[1][0], table[2][0]} == {"writer", model}
    assert table[3][:2] == ["total", "2"]
    assert command(config, "usage", "--days", "0").returncode == 1
