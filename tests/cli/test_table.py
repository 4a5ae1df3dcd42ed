"""Tables on terminals of several widths, and where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.table import print_table
from gateway.cli.terminal import clean
from tests.harness import COMMAND, project, tied
from tests.screen import Screen, terminal_for_this_process

HEADER = ("NAME", "STATE", "MEMORY", "PERSONALITIES")
ROWS = (
    ("Mistral-7b", "ready", "4.1 GiB", "geography teacher, pirate, one that is longer"),
    ("x", "failed", "-", "-"),
    ("日本", "stopped", "12.0 GiB", "-"),
)
EVIL = "\x1b]0;title\x07[bold]m[/bold] :smile:\n\x9b31m\u202e"


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def shown(
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    header: tuple[str, ...] = HEADER,
    rows: tuple[tuple[str, ...], ...] = ROWS,
) -> Screen:
    with terminal_for_this_process(columns) as (stream, screen):
        monkeypatch.setattr(sys, "stdout", stream)
        print_table(header, rows)
        monkeypatch.undo()
    assert not screen.scrolled
    return screen


def test_wide_terminal_shows_rows_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = shown(monkeypatch, 120)
    assert screen.text.splitlines() == [
        "NAME        STATE      MEMORY  PERSONALITIES",
        "Mistral-7b  ready     4.1 GiB  geography teacher, pirate, one that is longer",
        "x           failed          -  -",
        "日本        stopped  12.0 GiB  -",
    ]
    assert {"1", "2", "31", "32"} <= screen.styles


def test_long_texts_are_broken_into_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, 60).text.splitlines()[:4] == [
        "NAME        STATE      MEMORY  PERSONALITIES",
        "Mistral-7b  ready     4.1 GiB  geography teacher, pirate,",
        "                               one that is longer",
        "x           failed          -  -",
    ]


def test_narrow_terminal_shows_a_row_as_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, 36).text.splitlines()[:7] == [
        "NAME           Mistral-7b",
        "STATE          ready",
        "MEMORY         4.1 GiB",
        "PERSONALITIES  geography teacher,",
        "               pirate, one that is",
        "               longer",
        "",
    ]


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "")])
def test_table_has_no_colours_where_none_are_wanted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    screen = shown(monkeypatch, 60)
    assert "\x1b" not in screen.raw
    assert "Mistral-7b  ready     4.1 GiB  geography teacher, pirate," in screen.text


def test_table_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEADER, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == (
        "Mistral-7b  ready     4.1 GiB  geography teacher, pirate, one that is longer"
    )
    assert len(lines) == 4
    print_table(("A", "B"), [("x" * 200, "y" * 200)])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_nothing_in_a_cell_is_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table((EVIL, "B"), [(EVIL, "1")])
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2
    assert all(c.isprintable() or c == "\n" for c in out)
    assert r"\x1b]0;title\x07[bold]m[/bold] :smile: \x9b31m\u202e" in out
    screen = shown(monkeypatch, 100, (EVIL, "B"), ((EVIL, "1"),))
    assert screen.text.count(r"\x1b]0;title\x07[bold]m[/bold] :smile: \x9b31m\u202e") == 2
    assert not screen.styles & {"31", "5"}


def test_lines_stay_where_they_may() -> None:
    assert clean("a\n\tb\x1b[1m\udcff", lines=True) == "a\n\tb\\x1b[1m\\udcff"


def test_reader_that_goes_away_ends_a_table_quietly(tmp_path: Path) -> None:
    """`| head -1` ends it, and nothing is complained of."""
    models = {f"{number}{'x' * 100}": {"wrong": 1} for number in range(1200)}
    process = subprocess.Popen(
        tied(COMMAND, "check", "--config", project(tmp_path / "p", models)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert "unknown" in process.stdout.readline()
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait(20) == 1


def test_a_command_that_is_piped_starts_without_rich() -> None:
    code = (
        "import sys; from gateway.cli import COMMANDS; import importlib\n"
        "for module, _ in COMMANDS.values(): importlib.import_module(module)\n"
        "from gateway.cli.table import print_table; print_table(('A',), [('1',)])\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('rich', 'shtab')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_character_that_stdout_cannot_encode_is_escaped(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "check", "--config", "日本.yaml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
        env={"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "1"},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert r"\u65e5\u672c.yaml" in done.stdout
