"""Options of a llama-server that defeat the saving of conversations are warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.doctor.slot_options import slot_options
from gateway.models.local_model import LocalModel
from tests.harness import DEMO, DEMO_GGUF, project


@pytest.mark.parametrize(
    ("arguments", "variables", "warned"),
    [
        ("", {}, []),
        ("--cache-ram 0", {}, []),
        ("--cache-ram 8192", {}, ["--cache-ram"]),
        ("--cache_ram=-1", {}, ["--cache-ram"]),
        ("-cram 0 -cram 1", {}, ["--cache-ram"]),
        ("", {"LLAMA_ARG_CACHE_RAM": "1"}, ["--cache-ram"]),
        ("--cache-ram 0", {"LLAMA_ARG_CACHE_RAM": "1"}, []),
        ("--slot-save-path /elsewhere", {}, ["--slot-save-path"]),
        ("", {"LLAMA_ARG_SLOT_SAVE_PATH": "/elsewhere"}, []),  # the gateway's own flag wins
        ("--sleep-idle-seconds 60", {}, ["--sleep-idle-seconds"]),
        ("--sleep-idle-seconds -1", {}, []),
        ("--no-slots", {}, ["--no-slots"]),
        ("--no-slots --slots", {}, []),
        ("--slots", {"LLAMA_ARG_ENDPOINT_SLOTS": "off"}, []),
        ("", {"LLAMA_ARG_ENDPOINT_SLOTS": "off"}, ["--no-slots"]),
        ("", {"LLAMA_ARG_NO_ENDPOINT_SLOTS": "1"}, ["--no-slots"]),
        ("--no-cache-prompt", {}, ["--no-cache-prompt"]),
        ("", {"LLAMA_ARG_CACHE_PROMPT": "0"}, ["--no-cache-prompt"]),
    ],
)
def test_option_that_defeats_it_is_warned_of(
    arguments: str, variables: dict[str, str], warned: list[str]
) -> None:
    spec = LocalModel(name="m", extra_args=tuple(arguments.split()), env=variables)
    assert [line.split()[1] for line in slot_options(spec)] == warned


def test_model_of_which_nothing_is_saved_is_not_warned_of() -> None:
    spec = LocalModel(name="m", extra_args=("--cache-ram", "1"), embeddings=True)
    assert [*slot_options(spec)] == []


@pytest.mark.parametrize("enabled", [True, False])
def test_check_warns_where_conversations_are_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], enabled: bool
) -> None:
    entry: dict[str, Any] = {"params": {"model": DEMO_GGUF}, "extraArgs": ["--cache-ram", "1"]}
    config = project(tmp_path / "p", {DEMO: entry}, cache={"enabled": enabled})
    assert main(["check", "--config", str(config)]) == 0
    assert (f"warning: {DEMO}: --cache-ram lets" in capsys.readouterr().err) is enabled
