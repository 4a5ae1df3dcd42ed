"""`llm-gateway models add`, `rm` and `show`, as they are typed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from tests.gguf_file import Kind, entry, write_gguf
from tests.harness import project
from tests.tiny_model import write_tiny_model

Models = Callable[..., tuple[int, str, str]]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "LLMs"
    (folder / "sub").mkdir(parents=True)
    write_tiny_model(folder / "one.gguf")
    shutil.copy(folder / "one.gguf", folder / "sub/two-Q8_0.gguf")
    (folder / "page.gguf").write_bytes(b"<html>")
    write_gguf(folder / "mmproj.gguf", [entry("general.architecture", Kind.STRING, "clip")], [])
    return folder


@pytest.fixture
def config(tmp_path: Path, storage: Path) -> Path:
    one = {"params": {"model": "one.gguf"}}
    return project(
        tmp_path / "box",
        {"one": {**one, "aliases": ["uno"]}, "twin": one, "gone": {"params": {"model": "no.gguf"}}},
        llm_storage=str(storage),
    )


@pytest.fixture
def models(config: Path, capsys: pytest.CaptureFixture[str]) -> Models:
    """``models(ACTION, ...)`` -> exit status, stdout, stderr."""

    def run(action: str, *arguments: str) -> tuple[int, str, str]:
        status = main(["models", action, "--config", str(config), *arguments])
        return (status, *capsys.readouterr())

    return run


def written(config: Path) -> dict[str, Any]:
    entries: dict[str, Any] = json.loads((config.parents[1] / "data/models.json").read_text())
    return entries


@pytest.mark.parametrize("absolute", [True, False])
def test_a_file_is_added(models: Models, config: Path, storage: Path, absolute: bool) -> None:
    file = "sub/two-Q8_0.gguf"
    status, out, err = models("add", str(storage / file) if absolute else file)
    assert (status, err) == (0, "")
    assert "1 written to" in out
    assert list(written(config)) == ["one", "twin", "gone", "two"]
    assert written(config)["two"]["params"]["model"] == file
    assert models("add", file, "--name", "other")[0] == 0
    assert "other" in written(config)


def test_a_file_outside_is_named_by_its_path(
    models: Models, config: Path, storage: Path, tmp_path: Path
) -> None:
    shutil.copy(storage / "one.gguf", tmp_path / "three.gguf")
    assert models("add", str(tmp_path / "three.gguf"))[0] == 0
    assert written(config)["three"]["params"]["model"] == str(tmp_path / "three.gguf")


def test_a_model_of_other_servers_is_added(models: Models, config: Path) -> None:
    assert models("add", "far=https://a.example/v1,https://b.example/v1")[0] == 0
    assert models("add", "near=http://127.0.0.1:9/v1")[0] == 0
    assert written(config)["far"] == {"url": ["https://a.example/v1", "https://b.example/v1"]}
    assert written(config)["near"] == {"url": "http://127.0.0.1:9/v1"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("nowhere.gguf",), "there is no file nowhere.gguf in"),
        (("page.gguf",), "web page"),
        (("mmproj.gguf",), "is no model of its own"),
        (("one.gguf", "--name", "twin"), "there is a model 'twin' already"),
        (("sub/two-Q8_0.gguf", "--name", "uno"), "there is a model 'uno' already"),
        (("x=https://",), "x.url"),
        (("twin=https://a.example",), "there is a model 'twin' already: give it another NAME"),
        (("x=192.0.2.9",), "no NAME=URL: a URL is like http://"),
        (("x=https://a.example", "--name", "y"), "--name is for a FILE"),
    ],
)
def test_wrong_addition_is_refused_and_changes_nothing(
    models: Models, config: Path, arguments: tuple[str, ...], reason: str
) -> None:
    before = written(config)
    status, _, err = models("add", *arguments)
    assert status == 1
    assert reason in err
    assert written(config) == before


def test_an_entry_is_removed(models: Models, config: Path, storage: Path) -> None:
    status, out, _ = models("rm", "twin")
    assert status == 0
    assert "twin removed from" in out
    assert list(written(config)) == ["one", "gone"]
    assert (storage / "one.gguf").exists()


def test_a_file_goes_with_its_last_entry(models: Models, config: Path, storage: Path) -> None:
    status, _, err = models("rm", "one", "--file", "--yes")
    assert status == 1
    assert "another model uses them" in err
    assert list(written(config)) == ["one", "twin", "gone"]
    assert models("rm", "twin")[0] == 0
    status, _, err = models("rm", "one", "--file")
    assert status == 1
    assert "--yes deletes without a question" in err
    assert (storage / "one.gguf").exists()
    assert models("rm", "one", "--file", "--yes")[0] == 0
    assert not (storage / "one.gguf").exists()
    assert list(written(config)) == ["gone"]


def test_files_elsewhere_are_not_deleted(
    models: Models, config: Path, storage: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "three.gguf"
    shutil.copy(storage / "one.gguf", outside)
    (storage / "link.gguf").symlink_to(outside)
    for name, file in (("absolute", str(outside)), ("linked", "link.gguf")):
        assert models("add", file, "--name", name)[0] == 0
        # Each alone: the other one names the same file.
        status, _, err = models("rm", name, "--file", "--yes")
        assert status == 1
        assert "is not below llm_storage" in err
        assert models("rm", name)[0] == 0
    assert outside.exists()


@pytest.mark.parametrize("action", ["rm", "show"])
def test_unknown_model_is_told_with_the_known_ones(
    models: Models, config: Path, action: str
) -> None:
    status, _, err = models(action, "onr")
    assert status == 1
    # Which models.json: beside a gateway elsewhere there may be one here.
    assert f"there is no model 'onr' in {config.parents[1] / 'data/models.json'}" in err
    assert "one" in err


def test_a_model_is_shown(models: Models, storage: Path) -> None:
    status, out, _ = models("show", "uno")
    assert status == 0
    assert '"one": {' in out
    assert f"{storage}/one.gguf" in out
    assert "the gateway is not running" in out
    assert "llama, F32, chat" in out
    assert "--alias one" in out
    shown = json.loads(models("show", "one", "--json")[1])
    assert shown["entry"]["aliases"] == ["uno"]
    assert shown["command"][shown["command"].index("--model") + 1] == f"{storage}/one.gguf"
    assert "does not exist" in models("show", "gone")[1]


def test_personalities_are_shown_as_clients_see_them(models: Models, config: Path) -> None:
    coder = {"description": "for code", "reasoning": False}
    personalities = {"pirate": "Arr.", "coder": coder, "hidden": {"unlisted": True}}
    entry = {"params": {"model": "one.gguf"}, "meta": {"displayName": "The One"}}
    entries = {"one": {**entry, "personalities": personalities}}
    (config.parents[1] / "data/models.json").write_text(json.dumps(entries))
    _, out, _ = models("show", "one")
    for line in ("one:pirate", "one:coder  for code", "one:hidden  (unlisted)"):
        assert f"client sees: {line}\n" in out
    shown = json.loads(models("show", "one", "--json")[1])
    assert [each["id"] for each in shown["virtual_models"]] == [
        *(f"one:{name}" for name in personalities)
    ]
    (listed,) = json.loads(models("--json")[1])
    assert (listed["display_name"], listed["personalities"]) == ("The One", [*personalities])


def test_keys_of_other_servers_are_not_shown(models: Models, config: Path) -> None:
    entries = {"far": {"url": "https://a.example/v1", "key": "sk-secret"}}
    (config.parents[1] / "data/models.json").write_text(json.dumps(entries))
    for arguments in (("far",), ("far", "--json")):
        status, out, err = models("show", *arguments)
        assert status == 0
        assert "a.example" in out
        assert "sk-secret" not in out + err
