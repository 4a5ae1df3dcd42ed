"""`llm-gateway pull`, as somebody types it who has read of a model."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.cli.pull_progress import PlainProgress, progress_in_numbers
from gateway.models import hub_client
from gateway.models.fetching import PullProgress
from tests.harness import COMMAND, project, tied, wait_until
from tests.hub_server import HubServer, Repo, hub_server
from tests.screen import at_terminal
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow

NAME = "me/tiny-GGUF"


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    write_tiny_model(tmp_path / "tiny.gguf")
    return (tmp_path / "tiny.gguf").read_bytes()


@pytest.fixture
def server(model: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server() as server:
        server.repos[NAME] = Repo(
            {"tiny-Q4_0.gguf": model, "tiny-Q8_0.gguf": model, "tiny-F16.gguf": b"x" * 2_000_000}
        )
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
        # The client reads HF_ENDPOINT when it is imported, which it may have been before.
        hub = hub_client.Hub
        monkeypatch.setattr(hub_client, "Hub", lambda: hub(server.url))
        yield server


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return project(tmp_path / "box", {}, llm_storage=str(tmp_path / "LLMs"))


def entries(config: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(
        (config.parents[1] / "data/models.json").read_text()
    )
    return found


def test_a_model_comes_and_has_its_entry(
    server: HubServer, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", "--config", str(config), f"{NAME}:q4_0"]) == 0
    out = capsys.readouterr().out
    assert f"{NAME} Q4_0: 1 file" in out
    assert "done: it is the model tiny of" in out
    assert entries(config)["tiny"]["params"]["model"] == f"{NAME}/tiny-Q4_0.gguf"  # type: ignore[index]
    assert main(["check", "--config", str(config)]) == 0
    capsys.readouterr()
    # The same again: nothing is fetched, nothing is written twice.
    assert main(["pull", "--config", str(config), f"https://huggingface.co/{NAME}:Q4_0"]) == 0
    assert "done: it is the model tiny of" in capsys.readouterr().out
    assert len(server.starts()) == 1
    assert list(entries(config)) == ["tiny"]


def test_pull_writes_an_entry_of_any_name_or_none(
    server: HubServer, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", "--config", str(config), f"{NAME}:Q8_0", "--no-entry"]) == 0
    assert entries(config) == {}
    assert main(["pull", "--config", str(config), f"{NAME}:Q4_0", "--name", "small"]) == 0
    assert list(entries(config)) == ["small"]
    asked = len(server.asked)
    assert main(["pull", "--config", str(config), f"{NAME}:Q8_0", "--name", "small"]) == 1
    assert "there is a model 'small' already" in capsys.readouterr().err
    assert len(server.asked) == asked


def test_without_a_terminal_it_lists_and_says_what_to_type(
    server: HubServer, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", "--config", str(config), NAME]) == 2
    out, err = capsys.readouterr()
    assert re.search(r"Q4_0 .*yes +recommended", out)
    assert f"llm-gateway pull {NAME}:Q4_0, or --yes" in err
    assert server.starts() == []
    assert main(["pull", "--config", str(config), NAME, "--yes"]) == 0
    assert entries(config)["tiny"]["params"]["model"] == f"{NAME}/tiny-Q4_0.gguf"  # type: ignore[index]


def test_the_quantisations_come_as_json(
    server: HubServer, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", "--config", str(config), NAME, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["fits"]) for one in told["quantisations"]] == [
        ("Q4_0", "yes"),
        ("Q8_0", "yes"),
        ("F16", "yes"),
    ]
    assert [one["name"] for one in told["quantisations"] if one["recommended"]] == ["Q4_0"]


def test_what_is_too_large_is_said(
    server: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = project(
        tmp_path / "small",
        {},
        llm_storage=str(tmp_path / "LLMs"),
        scheduler={"memory_budget": "400MiB"},
    )
    assert main(["pull", "--config", str(config), NAME]) == 2
    out, err = capsys.readouterr()
    assert "Nothing fits the memory of this machine." in out
    assert "--yes" not in err
    assert main(["pull", "--config", str(config), NAME, "--yes"]) == 1
    assert "nothing in me/tiny-GGUF fits" in capsys.readouterr().err
    assert main(["pull", "--config", str(config), f"{NAME}:Q4_0"]) == 0
    assert "warning: it needs about" in capsys.readouterr().err


def test_what_is_no_model_has_no_entry(
    server: HubServer, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", "--config", str(config), f"{NAME}:F16"]) == 1
    assert "is here, and cannot be used" in capsys.readouterr().err
    assert entries(config) == {}


def test_a_broken_models_file_is_told_before_anything_is_fetched(
    server: HubServer, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parents[1] / "data/models.json").write_text("{")
    assert main(["pull", "--config", str(config), f"{NAME}:Q4_0"]) == 1
    assert "is not valid JSON" in capsys.readouterr().err
    assert server.asked == []


def test_without_the_clients_package_it_says_how_to_get_it(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["pull", "--config", str(config), NAME]) == 1
    assert "pip install 'llm-api-gateway[hub]'" in capsys.readouterr().err


def test_pull_goes_on_after_ctrl_c(server: HubServer, config: Path, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3_000_000)
    server.repos[NAME] = Repo({"big-Q4_0.gguf": data})
    server.holds = [2_000_000]
    command = [COMMAND, "pull", "--config", str(config), NAME, "--yes", "--no-entry"]
    env = {**os.environ, **server.environ}
    with subprocess.Popen(
        tied(*command), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        folder = tmp_path / "LLMs" / NAME

        def there() -> bool:
            return any(part.stat().st_size == 2_000_000 for part in folder.glob(".*.part"))

        wait_until(there, 30, "two thirds have come")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "\nstopped (2 MiB of 3 MiB have come): run the same again to go on\n"
    assert [path.name[0] for path in folder.iterdir()] == ["."]
    assert main(command[1:]) == 0
    assert server.starts() == [0, 2_000_000]
    assert (folder / "big-Q4_0.gguf").read_bytes() == data


# --- how it is shown -------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 60])
def test_pull_asks_at_a_terminal(server: HubServer, config: Path, columns: int) -> None:
    data = random.Random(1).randbytes(3_000_000)
    server.repos[NAME].files["tiny-F16.gguf"] = data
    server.breaks, server.holds = [0], [2**30, 1_500_000]
    with at_terminal(
        *("pull", "--config", config, NAME, "--no-entry"), columns=columns, env=server.environ
    ) as terminal:
        terminal.until(r"Fetch which\? \[1\]")
        terminal.type("7\n")
        terminal.until("a number from 1 to 3, or a name")
        terminal.type("f16\n")
        shown = terminal.until("again in 1 s")
        assert "the connection to localhost broke off" in " ".join(shown.split())
        terminal.until(r"downloading .* \d\.\d/2\.9 MiB")
        terminal.interrupt()
        assert terminal.ended() == 130
        assert "run the same again to go on" in " ".join(terminal.screen.text.split())
        assert not [row for row in terminal.screen.rows if "downloading" in row]


def test_progress_tells_size_percent_speed_and_time() -> None:
    coming = PullProgress("downloading", "x.gguf", 3 * 2**29, 3 * 2**30)
    assert progress_in_numbers(coming, 2**20 * 10.0) == "1.5/3.0 GiB  50%  10.0 MiB/s 2:33"
    assert progress_in_numbers(coming, None) == "1.5/3.0 GiB  50%"
    assert progress_in_numbers(coming, 10.0).endswith(" -:--")
    assert progress_in_numbers(coming._replace(stage="checking"), 1e9) == "1.5/3.0 GiB  50%"


def test_a_reason_to_wait_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = PlainProgress(sys.stderr)
    for left in (3, 2, 1):
        waiting = PullProgress("waiting", "x.gguf", 0, 10, note="the hub is busy", wait=left)
        lines.told(waiting)
    assert capsys.readouterr().err == "the hub is busy; again in 3 s\n"
