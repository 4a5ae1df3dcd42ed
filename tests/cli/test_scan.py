"""`llm-gateway models scan` and `init --scan`, as a person with a folder of files types them."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.cli.scan_table import numbers
from gateway.models.paths import resolve_model_path
from tests.harness import COMMAND, DEMO_GGUF, Served, project, tied
from tests.minilm_model import wheel, write_minilm_model
from tests.tiny_model import write_tiny_model


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "LLMs"
    folder.mkdir()
    for name in ("one.gguf", "two-F32.gguf", "three.gguf"):
        write_tiny_model(folder / name)
    (folder / "page.gguf").write_bytes(b"<html>")
    return folder


@pytest.fixture
def config(tmp_path: Path, storage: Path) -> Path:
    entries = {"mine": {"params": {"model": "one.gguf"}}}
    return project(tmp_path / "box", entries, llm_storage=str(storage))


def models(config: Path) -> dict[str, object]:
    entries: dict[str, object] = json.loads((config.parents[1] / "data/models.json").read_text())
    return entries


def test_only_what_is_new_is_written(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = models(config)
    assert main(["models", "--config", str(config), "scan", "--yes"]) == 0
    out = capsys.readouterr().out
    assert list(models(config)) == ["mine", "three", "two"]
    assert models(config)["mine"] == before["mine"]
    assert json.loads((config.parents[1] / "data/models.json~").read_text()) == before
    assert re.search(r"^1 +three +llama", out, re.MULTILINE)
    assert "! page.gguf: it is a web page" in out
    assert "2 written to" in out
    written = (config.parents[1] / "data/models.json").read_bytes()
    assert main(["models", "scan", "--config", str(config), "--yes"]) == 0
    assert "written" not in capsys.readouterr().out
    assert (config.parents[1] / "data/models.json").read_bytes() == written
    assert main(["check", "--config", str(config)]) == 0


def test_without_a_terminal_nobody_is_asked(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = models(config)
    assert main(["models", "scan", "--config", str(config)]) == 0
    assert "no model was added, as there is no terminal to ask in: --yes" in capsys.readouterr().out
    assert models(config) == before


def test_scan_tells_what_it_found_as_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "scan", "--config", str(config), "--json"]) == 0
    found = {one["file"]: one for one in json.loads(capsys.readouterr().out)}
    assert list(found) == ["page.gguf", "three.gguf", "two-F32.gguf"]
    assert found["page.gguf"]["entry"] is None
    assert "web page" in found["page.gguf"]["problem"]
    two = found["two-F32.gguf"]
    assert (two["name"], two["task"], two["context"]) == ("two", "chat", 32768)
    assert two["entry"]["params"]["model"] == "two-F32.gguf"


@pytest.mark.parametrize("link", ["no folder", "unwritable", "broken"])
def test_what_cannot_be_done_is_said(
    config: Path, capsys: pytest.CaptureFixture[str], link: str
) -> None:
    file = config.parents[1] / "data/models.json"
    arguments = ["models", "scan", "--config", str(config), "--yes"]
    if link == "no folder":
        assert main([*arguments, "/nowhere/at/all"]) == 1
        assert "there is no folder /nowhere/at/all" in capsys.readouterr().err
    elif link == "unwritable":
        file.unlink()
        file.symlink_to("/proc/version")
        assert main(arguments) == 1
    else:
        file.write_text("{")
        assert main(arguments) == 1
        assert file.read_text() == "{"
        assert "error:" in capsys.readouterr().err


def test_a_terminal_is_asked(config: Path) -> None:
    """In a terminal of 80 columns; what is typed wrong is asked again."""
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        tied(COMMAND, "models", "scan", "--config", config),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "COLUMNS": "80"},
    )
    os.close(terminal)
    seen = b""
    try:
        for words, typed in (
            (b"or none: ", b"7\n"),
            (b"not among 1 to 2", b"2\n"),
            (b"~): two", b""),
        ):
            while words not in seen:
                seen += os.read(screen, 1000)
            os.write(screen, typed)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    assert list(models(config)) == ["mine", "two"]
    table, _, _ = re.sub(r"\x1b\[[\d;]*m", "", seen.decode()).partition("Write which")
    assert max(map(len, table.splitlines())) <= 80


@pytest.mark.parametrize(
    ("answer", "meant"),
    [
        ("", [1, 2, 3, 4]),
        (" ALL ", [1, 2, 3, 4]),
        ("none", []),
        ("2", [2]),
        ("1,3-4", [1, 3, 4]),
        ("4 2 2", [2, 4]),
    ],
)
def test_answer_is_read_as_numbers_and_ranges(answer: str, meant: list[int]) -> None:
    assert numbers(answer, 4) == meant


@pytest.mark.parametrize("answer", ["5", "0", "3-1", "x", "1-", "-2", "1;2", "²"])
def test_answer_that_is_no_number_is_refused(answer: str) -> None:
    with pytest.raises(ValueError, match=r"is (no number|not among)"):
        numbers(answer, 4)


def test_a_folder_of_files_becomes_a_gateway(tmp_path: Path) -> None:
    """`init --scan`, `serve`, and real answers: of a model that writes, and one that embeds."""
    folder = tmp_path / "files"
    folder.mkdir()
    demo = resolve_model_path(DEMO_GGUF, folder)
    shutil.copy(demo, folder / demo.name)
    write_minilm_model(folder / "minilm.gguf", wheel())
    box = tmp_path / "box"
    command = [str(COMMAND), "init", str(box), "--scan", str(folder), "--yes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 written to" in done.stdout
    served = Served(box)
    try:
        with served.client() as client:
            assert {model.id for model in client.models.list()} == {
                "SmolLM2-135M-Instruct",
                "minilm",
            }
            said = client.chat.completions.create(
                model="SmolLM2-135M-Instruct",
                messages=[{"role": "user", "content": "Hi"}],
                max_tokens=4,
            )
            assert said.choices[0].message.content
            long = client.embeddings.create(model="minilm", input=["word " * 400, "short"])
            assert [len(one.embedding) for one in long.data] == [384, 384]
    finally:
        served.stop()
