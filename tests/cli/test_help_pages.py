"""The commands' help: in the terminal, and recorded in docs/cli."""

from __future__ import annotations

import argparse
import re
import shlex
from itertools import takewhile
from pathlib import Path

import pytest

from gateway.cli import COMMANDS, GROUPS, help_pages, main, parser_for
from gateway.cli.parser import Parser
from tests.harness import REPOSITORY

PARSERS = {parser.prog: parser for parser in help_pages.every_parser()}
#: Ends the part of an example that is ours.
SHELL = re.compile(r"^[|<>;&].*$")


def test_the_recorded_help_is_that_of_the_parsers() -> None:
    folder = REPOSITORY / "docs/cli"
    recorded = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.md")}
    written = help_pages.pages()
    wrong = {name for name in recorded | written if recorded.get(name) != written.get(name)}
    assert not wrong, "python -m gateway.cli.help_pages docs/cli"


def test_pages_are_written_and_those_of_commands_that_are_gone_taken_away(tmp_path: Path) -> None:
    (tmp_path / "gone.md").touch()
    help_pages.main(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "README.md",
        *(f"{name}.md" for name in COMMANDS),
    }


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
def test_help_fits_80_columns_and_has_an_example(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = parser.format_help()
    assert max(map(len, text.splitlines())) <= 80, text
    assert parser.description
    assert parser.examples
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list of them
        commands = isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
        assert action.help or commands, action


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
def test_examples_are_understood(parser: Parser) -> None:
    for example in parser.examples:
        words = [word.removeprefix(".venv/bin/") for word in shlex.split(example)]
        words = words[words.index("llm-gateway") + 1 :]
        ours = list(takewhile(lambda word: not SHELL.match(word), words))
        assert " ".join(("llm-gateway", *ours)).startswith(parser.prog)
        assert parser_for(ours[0]).parse_args(ours).run


def test_every_command_is_in_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(COMMANDS) <= {name for names in GROUPS.values() for name in names}
    assert main([]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for name, (_, about) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(about)}$", out, re.MULTILINE)
