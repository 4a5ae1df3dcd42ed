"""Who may read and write what, and models that fit or don't."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import load_settings
from gateway.doctor import files
from gateway.doctor.checks import Finding, Level, Subject
from gateway.library import read_partly
from tests.harness import DEMO_GGUF, project

Made = Callable[..., Subject]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A project with these models and settings, private as `init` makes it."""

    def make(models: dict[str, Any], **settings: Any) -> Subject:
        file = project(tmp_path / "p", models, **settings)
        for folder in (tmp_path / "p", tmp_path / "p/data", tmp_path / "p/conf"):
            folder.chmod(0o700)
        (tmp_path / "p/data/models.json").chmod(0o600)
        loaded = load_settings(file, environ={}).settings
        return Subject(loaded, read_partly(loaded.models_file)[0], {}, ())

    return make


def bad(found: Iterator[Finding]) -> list[tuple[str, str]]:
    return [(one.level.value, one.what) for one in found if one.level is not Level.OK]


def test_private_folder_is_ok(made: Made) -> None:
    (finding,) = files.check_permissions(made({}))
    assert finding.level is Level.OK
    assert "alone" in finding.what


@pytest.mark.parametrize(
    ("name", "mode", "level", "what"),
    [
        ("data", 0o755, "warning", "data is open to others (mode 755)"),
        ("data/gateway.db", 0o644, "error", "gateway.db can be read or changed by others"),
        ("data/gateway.db-wal", 0o660, "error", "gateway.db-wal can be read or changed"),
        ("data/acme/x/certificate.pem", 0o604, "error", "certificate.pem can be read"),
        ("ssl/local-ca-key.pem", 0o644, "error", "local-ca-key.pem can be read"),
        ("data/models.json", 0o666, "error", "models.json can be written by every user"),
    ],
)
def test_file_that_is_open_to_others_is_told(
    made: Made, name: str, mode: int, level: str, what: str
) -> None:
    subject = made({}, tls={"private_key": "ssl/x-key.pem"})
    file = subject.settings.data_dir.parent / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        file.touch()
    file.chmod(mode)
    (found,) = bad(files.check_permissions(subject))
    assert found[0] == level
    assert what in found[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to groups it is not in")
def test_group_that_may_choose_programs_is_warned_of(made: Made) -> None:
    subject = made({})
    os.chown(subject.settings.models_file, -1, 54321)
    subject.settings.models_file.chmod(0o660)
    (found,) = bad(files.check_permissions(subject))
    assert found == (
        "warning",
        f"{subject.settings.models_file} can be written by the group 54321",
    )


def test_files_of_models_are_checked(made: Made) -> None:
    entries = {
        "fits": {"params": {"model": DEMO_GGUF, "ctxSize": 512}},
        "big": {"params": {"model": DEMO_GGUF}, "memory": "900TiB"},
        "gone": {"params": {"model": "gone.gguf"}},
        "far": {"url": "http://127.0.0.1:1"},
        "gpu": {"params": {"model": DEMO_GGUF}, "requireGpu": True},
    }
    found = {one.subject: one for one in files.check_models(made(entries))}
    assert found["fits"].level is Level.OK
    assert "needs about " in found["fits"].what
    assert found["big"].level is Level.WARNING
    assert "a smaller ctxSize" in found["big"].do
    assert found["gone"].level is Level.ERROR
    assert "gone.gguf does not exist" in found["gone"].what
    assert found["far"].level is Level.OK
    assert (found["gpu"].level, found["gpu"].what) == (
        Level.ERROR,
        "requires a GPU, and there is none",
    )


def test_no_models_are_warned_of(made: Made) -> None:
    (finding,) = files.check_models(made({}))
    assert finding.level is Level.WARNING
    assert "models scan" in finding.do


def test_the_budget_is_what_the_configuration_says(made: Made) -> None:
    entries = {"m": {"params": {"model": DEMO_GGUF, "ctxSize": 512}}}
    subject = made(entries, scheduler={"memory_budget": "10MiB"})
    (finding,) = files.check_models(subject)
    assert finding.level is Level.WARNING
    assert "and there is 10 MiB for models" in finding.what
    assert json.loads(subject.settings.models_file.read_text()) == entries
