"""What `--json` prints has exactly the fields that docs/cli names, of a real gateway's answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import help_pages, main
from gateway.cli.profiles import Profile, save
from tests.harness import COMMAND, Served, project
from tests.tiny_model import write_tiny_model

FIELDS = {parser.prog: parser.fields for parser in help_pages.every_parser()}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    """A gateway that has answered a question, and its configuration."""
    root = tmp_path_factory.mktemp("box")
    storage = root / "LLMs"
    storage.mkdir()
    write_tiny_model(storage / "tiny.gguf")
    write_tiny_model(storage / "new.gguf")
    (storage / "broken.gguf").write_bytes(b"GGUF")
    entry = {
        "params": {"model": "tiny.gguf", "ctxSize": 512},
        "personalities": {"pirate": "Arr."},
    }
    config = project(
        root / "project",
        {
            "tiny": entry,
            "gone": {"params": {"model": "gone.gguf"}},
            "far": {"url": "http://[::1]:9"},
        },
        llm_storage=str(storage),
    )
    served = Served(root / "project")
    try:
        assert served.url
        asked: list[Any] = [COMMAND, "chat", "--config", config, "--max-tokens", "4", "tiny", "Hi"]
        subprocess.run(asked, check=True, capture_output=True)
        yield served, str(config)
    finally:
        served.stop()


def paths(value: Any, known: set[str], path: str = "") -> set[str]:
    """Those of the fields in ``value``, down to where ``known`` names none further down."""
    deeper = any(one.startswith((f"{path}.", f"{path}[]")) for one in known)
    if path and not deeper:
        return {path}
    if isinstance(value, dict):
        below = [paths(v, known, f"{path}.{k}" if path else k) for k, v in value.items()]
    elif isinstance(value, list):
        below = [paths(one, known, f"{path}[]") for one in value]
    else:
        return {path}
    return set().union(*below)


#: What is asked for, and the exit status. The first looks at files of this machine.
ASKED = (
    ("check", (), 1),
    ("models scan", (), 0),
    ("keys list", (), 0),
    ("keys create", ("laptop",), 0),
    ("status", (), 0),
    ("models", (), 0),
    ("models show", ("tiny",), 0),
    ("models show", ("far",), 0),
    ("models show", ("gone",), 0),
    ("connect", ("codex", "--model", "tiny"), 0),
    ("logs", (), 0),
    ("logs", ("tiny", "-n", "3"), 0),
    ("usage", (), 0),
    ("usage", ("--by", "key"), 0),
    ("usage", ("--by", "model"), 0),
)


@pytest.mark.parametrize(
    ("where", "command", "arguments", "status"),
    [("here", *one) for one in ASKED] + [("elsewhere", *one) for one in ASKED[1:]],
)
def test_fields_are_those_that_are_documented(
    box: tuple[Served, str],
    where: str,
    command: str,
    arguments: tuple[str, ...],
    status: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served, config = box
    fields = FIELDS[f"llm-gateway {command}"]
    assert fields
    chosen = ["--config", config]
    if where == "elsewhere":
        chosen = ["--url", served.url]
        monkeypatch.setenv("LLM_GATEWAY_API_KEY", served.key)
    capsys.readouterr()
    assert main([*command.split(), *chosen, "--json", *arguments]) == status
    out, _ = capsys.readouterr()
    known = {path.removesuffix("?") for path in fields}
    told = paths(json.loads(out), known)
    assert told <= known
    assert {path for path in fields if not path.endswith("?")} <= told


def test_json_of_profiles_has_the_fields_that_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    save(Profile("box", "https://box.lan:8443", "llmgw_x", None), None)
    assert main(["login", "--list", "--json"]) == 0
    fields = FIELDS["llm-gateway login"]
    told = paths(json.loads(capsys.readouterr().out), {path.removesuffix("?") for path in fields})
    assert told == set(fields)


def test_every_command_with_json_names_its_fields() -> None:
    for parser in help_pages.every_parser():
        has = "--json" in parser.format_help()
        assert has == bool(parser.fields), parser.prog
