"""What is seen while a model loads, and while it is unloaded."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.cli.control import control_request
from gateway.config.load import load_settings
from tests.harness import COMMAND, FAKE, Served, fake_model, opened, project, wait_until
from tests.screen import at_terminal

pytestmark = pytest.mark.slow

Serve = Callable[..., Served]


@pytest.fixture
def config(tmp_path: Path, serve: Serve) -> Path:
    """A gateway with models that load slowly, or not at all."""
    os.mkfifo(tmp_path / "gate")
    slow = fake_model(tmp_path, reads=0.05, start_delay=3, gate=tmp_path / "gate", chunks=3)
    with Path(slow["params"]["model"]).open("wb") as file:
        file.truncate(60 * 2**20)
    config = project(
        tmp_path / "p",
        {"slow": slow, "broken": fake_model(tmp_path, exit=3)},
        llama_server=str(FAKE),
        scheduler={"memory_budget": "4GiB"},
    )
    assert serve("--config", str(config)).url
    return config


def state(config: Path) -> str:
    answer = control_request(load_settings(config).settings, "GET", "/admin/models")
    assert answer is not None
    states = {model["name"]: model["state"] for model in answer[1]["models"]}
    return str(states["slow"])


def test_load_on_a_terminal_shows_a_bar(config: Path) -> None:
    with at_terminal("load", "--config", config, "slow", columns=60, lines=6) as terminal:
        terminal.until(r"^slow  loading  [━╸ ]+ +\d+%  \d s$")
        assert not terminal.screen.cursor
        assert terminal.ended() == 0
        assert terminal.screen.text == "Model slow loaded."
        assert "2J" not in terminal.screen.raw


def test_ctrl_c_says_that_the_load_goes_on(config: Path) -> None:
    with at_terminal("load", "--config", config, "slow", columns=60, lines=6) as terminal:
        terminal.until("loading")
        terminal.interrupt()
        assert terminal.ended() == 130
        words = " ".join(terminal.screen.text.split())
        assert words == (
            "slow goes on loading, but will not be the active model; "
            "`llm-gateway unload slow` ends it"
        )
    wait_until(lambda: state(config) == "ready", 20, "it is loaded all the same")


def test_load_without_a_terminal_writes_few_lines(config: Path) -> None:
    done = subprocess.run(
        [COMMAND, "load", "--config", config, "slow"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "Model slow loaded.\n")
    lines = done.stderr.splitlines()
    assert any(line.startswith("slow: loading (") for line in lines)
    assert any(line.startswith("slow: loading 25% (") for line in lines)
    assert len(lines) <= 6
    assert "\x1b" not in done.stderr


def test_failed_load_on_a_terminal_tells_the_reason(config: Path) -> None:
    with at_terminal("load", "--config", config, "broken", columns=80) as terminal:
        assert terminal.ended() == 1
        text = " ".join(terminal.screen.text.split())
        assert text.startswith("error: the llama-server of 'broken' exited with status 3")


def test_unload_waits_for_a_running_request(config: Path, tmp_path: Path) -> None:
    chat = subprocess.Popen(
        [COMMAND, "chat", "--config", config, "slow", "Hello?"], stdout=subprocess.PIPE
    )
    assert chat.stdout is not None
    with chat.stdout as answer:
        assert answer.read(1)
        with at_terminal("unload", "--config", config, "slow", columns=60, lines=6) as terminal:
            terminal.until(r"^slow  waiting for 1 request to end  \d s$")
            terminal.interrupt()
            assert terminal.ended() == 130
            assert "slow will still be unloaded" in terminal.screen.text
        with opened(tmp_path / "gate"):
            answer.read()
    assert chat.wait(20) == 0
    wait_until(lambda: state(config) == "stopped", 20, "it is unloaded all the same")
