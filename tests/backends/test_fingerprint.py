"""What a saved state of a slot depends on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.backends.command import Command
from gateway.backends.fingerprint import fingerprint, with_build

ARGV = ("llama-server", "--model", "m.gguf", "--ctx-size", "4096")


def of(tmp_path: Path, *more: str, **env: str) -> str:
    return fingerprint(Command((*ARGV, *more), env), [tmp_path / "m.gguf"])


@pytest.fixture(autouse=True)
def model(tmp_path: Path) -> Path:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + bytes(300_000))
    return file


@pytest.mark.parametrize(
    "more",
    [("--temp", "0.5"), ("--host", "/run/2.sock"), ("--threads", "3"), ("--seed", "42")],
)
def test_sampling_threads_and_addresses_make_no_difference(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    assert of(tmp_path, *more) == of(tmp_path)


@pytest.mark.parametrize(
    "more",
    [("--cache-type-k", "q8_0"), ("--rope-scale", "2"), ("--lora", "x.gguf"), ("--swa-full",)],
)
def test_every_other_flag_makes_one(tmp_path: Path, more: tuple[str, ...]) -> None:
    assert of(tmp_path, *more) != of(tmp_path)


def test_variables_of_llama_server_make_one_and_others_do_not(tmp_path: Path) -> None:
    assert of(tmp_path, LLAMA_ARG_CTX_SIZE="1") != of(tmp_path)
    assert of(tmp_path, HOME="/x") == of(tmp_path)


@pytest.mark.parametrize("at", [4, 299_999])
def test_model_that_was_replaced_makes_one(tmp_path: Path, model: Path, at: int) -> None:
    before, status = of(tmp_path), model.stat()
    content = bytearray(model.read_bytes())
    content[at] ^= 1
    model.write_bytes(content)

    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert of(tmp_path) != before


def test_time_of_the_model_makes_one(tmp_path: Path, model: Path) -> None:

    before = of(tmp_path)
    os.utime(model, ns=(1, 1))
    assert of(tmp_path) != before


@pytest.mark.parametrize(
    "written",
    ["{}", "{}:0.5", "{},other.gguf", "other.gguf:1,{}:0.5"],
)
@pytest.mark.parametrize("relative", [False, True])
def test_adapter_that_was_replaced_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, *, relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    adapter = tmp_path / "a.gguf"
    adapter.write_bytes(b"one")
    value = written.format(adapter.name if relative else adapter)
    before = of(tmp_path, "--lora-scaled", value), of(tmp_path, LLAMA_ARG_LORA=value)

    adapter.write_bytes(b"another")

    after = of(tmp_path, "--lora-scaled", value), of(tmp_path, LLAMA_ARG_LORA=value)
    assert after[0] != before[0]
    assert after[1] != before[1]


def test_texts_that_are_no_path_are_no_file(tmp_path: Path) -> None:
    assert of(tmp_path, "--chat-template", "x" * 300, "--json-schema", "y/" * 3000, "--x", "\0")


def test_upgrade_makes_one_though_the_program_is_as_it_was(tmp_path: Path) -> None:
    """Its code may be in libraries beside it, or in another program that it starts."""
    (tmp_path / "bin").mkdir()
    program, library = tmp_path / "bin/llama-server", tmp_path / "bin/libllama.so.0"
    program.write_text("#!/bin/sh")
    library.write_text("b1")
    (tmp_path / "link").symlink_to(program)
    for path in (program, tmp_path / "link"):
        command = Command((str(path), "--model", "m.gguf"), {})
        before = fingerprint(command, [])
        library.write_text(library.read_text() + "!")
        assert fingerprint(command, []) != before
    assert with_build(before, "b2") != with_build(before, "b1") != before
