"""The commands' help as pages of docs/cli, made from their parsers.

``python -m gateway.cli.help_pages docs/cli`` writes them. They are rendered here and not by
argparse, whose layout differs between versions of Python and widths of terminals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from gateway.cli import COMMANDS, grouped, parser_for
from gateway.cli.parser import EXITS, Parser

_COMMAND: Final = "python -m gateway.cli.help_pages docs/cli"
_MADE: Final = f"<!-- Made from the parsers: `{_COMMAND}` writes it anew. -->\n\n"
_TOP: Final = "README.md"


def main(folder: Path) -> None:
    """Write every page into ``folder``, and delete those of commands that no longer exist."""
    written = pages()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in written:
            old.unlink()
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Return file name -> Markdown: one page for each command, and one for all."""
    parsers = _below(parser_for(None))
    return {
        _TOP: _MADE + _overview(),
        **{f"{name}.md": _MADE + "\n".join(_page(parsers[name])) + "\n" for name in COMMANDS},
    }


def every_parser() -> Iterator[Parser]:
    """Yield the parser of each command and of each subcommand."""
    for name in COMMANDS:
        yield from _with_those_below(_below(parser_for(name))[name])


def _overview() -> str:
    lines = ["# The commands", ""]
    for heading, names in grouped().items():
        lines += [f"**{heading[0].upper()}{heading[1:]}**", "", "| | |", "|---|---|"]
        lines += [f"| [`{name}`]({name}.md) | {_cell(COMMANDS[name][1])} |" for name in names]
        lines.append("")
    lines += [
        "`llm-gateway COMMAND -h` says the same in the terminal. An exit status means, if a page",
        "says nothing else:",
        "",
        *_table(("status", ""), {str(code): text for code, text in EXITS.items()}),
        "",
        "What is asked for goes to stdout, everything else (warnings, errors, progress) to stderr.",
        "What `--json` prints is one JSON value, whose fields are named on each command's page:",
        "`[].name` is a field of each object of a list, `a.b` one of an object in an object. They",
        "stay; more may come. Sizes are in bytes, and times are UTC as in `2030-12-31T23:59:59Z`.",
        "Tables and sentences are for people, and change.",
    ]
    return "\n".join(lines) + "\n"


def _page(parser: Parser) -> Iterator[str]:
    for number, one in enumerate(_with_those_below(parser)):
        if number:
            yield ""
        yield f"{'#' if number == 0 else '##'} {one.prog}"
        yield ""
        if one.description:
            yield one.description
            yield ""
        yield f"    {usage(one)}"
        yield from _options(one)
        if one.examples:
            yield from ("", "Examples:" if len(one.examples) > 1 else "Example:", "")
            yield from (f"    {line}" for line in one.examples)
        if one.exits:
            yield from ("", "Exit status:", "")
            yield from _table(("status", ""), {str(code): what for code, what in one.exits.items()})
        if one.fields:
            yield from ("", "`--json` prints:", "")
            yield from _table(
                ("field", ""), dict(map(_field, *zip(*one.fields.items(), strict=True)))
            )


def _field(path: str, what: str) -> tuple[str, str]:
    known = path.removesuffix("?")
    return f"`{known}`", what if known == path else f"{what}; may be missing"


def usage(parser: argparse.ArgumentParser) -> str:
    """Return one line: the command, its options if it has any, and its arguments."""
    words = [parser.prog]
    actions = [one for one in parser._actions if one.help != argparse.SUPPRESS]
    options = [one for one in actions if one.option_strings]
    words += [f"{one.option_strings[-1]} {_value(one)}".strip() for one in options if one.required]
    if any(not isinstance(one, argparse._HelpAction) for one in options):
        words.append("[OPTIONS]")
    words += [_value(one) for one in actions if not one.option_strings]
    return " ".join(words)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in parser._action_groups:
        actions = [
            one
            for one in group._group_actions
            if one.help != argparse.SUPPRESS and not isinstance(one, argparse._HelpAction)
        ]
        if not actions:
            continue
        below = next((one for one in actions if isinstance(one, argparse._SubParsersAction)), None)
        title = "Commands" if below is not None else _title(group.title or "")
        yield from ("", f"{title}:", "")
        if group.description:
            yield from (group.description, "")
        if below is not None:
            names = {f"`{one.dest}`": one.help or "" for one in below._choices_actions}
            yield from _table(("command", ""), names)
            continue
        rows = {_names(one): _help(one, parser) for one in actions}
        yield from _table(("option" if actions[0].option_strings else "argument", ""), rows)


def _title(title: str) -> str:
    words = {"positional arguments": "Arguments", "options": "Options"}
    return words.get(title, title[:1].upper() + title[1:])


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{_metavar(action)}`"
    *others, last = action.option_strings
    value = _value(action)
    return ", ".join((*(f"`{name}`" for name in others), f"`{last} {value}`".replace(" `", "`")))


def _value(action: argparse.Action) -> str:
    """Return the value or values that follow an option, as a usage line writes them."""
    if action.nargs == 0:
        return ""
    name = _metavar(action)
    forms: Mapping[object, str] = {
        argparse.OPTIONAL: f"[{name}]".replace("[[", "[").replace("]]]", "]]"),
        argparse.ZERO_OR_MORE: f"[{name} ...]",
        argparse.ONE_OR_MORE: f"{name} ...",
        argparse.REMAINDER: "...",
    }
    if isinstance(action.nargs, int):
        return " ".join([name] * action.nargs)
    return forms.get(action.nargs, name)


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar is not None:
        return action.metavar
    if action.choices is not None and not isinstance(action, argparse._SubParsersAction):
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper() if action.option_strings else action.dest


def _help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    values = {**vars(action), "prog": parser.prog}
    text = (action.help or "") % values
    if action.choices is not None and action.metavar is not None:
        text += f" ({', '.join(map(str, action.choices))})"
    return text


def _table(header: tuple[str, str], rows: Mapping[str, str]) -> Iterator[str]:
    yield f"| {header[0]} | {header[1]} |".replace("  ", " ")
    yield "|---|---|"
    for name, text in rows.items():
        yield f"| {_cell(name)} | {_cell(text)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _below(parser: argparse.ArgumentParser) -> dict[str, Parser]:
    """Return the subcommands by name, without their aliases, with the parser of each."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {one.dest: action.choices[one.dest] for one in action._choices_actions}
    return {}


def _with_those_below(parser: Parser) -> Iterator[Parser]:
    yield parser
    for one in _below(parser).values():
        yield from _with_those_below(one)


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]))
