"""The parsers of the command line: their help, its examples, and suggestions in their errors."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NoReturn

#: The widest line of help, even in a wider terminal.
_WIDEST: Final = 100
#: The exit statuses of every command, unless it says otherwise (:func:`explain`).
EXITS: Final = MappingProxyType(
    {
        0: "done",
        1: "it failed: the reason is on stderr, behind `error:`",
        2: "the command line was not understood",
        130: "ended by Ctrl-C",
    }
)


class Formatter(argparse.HelpFormatter):
    """Help of at most 100 columns that keeps the lines of examples, the same on every Python."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, _WIDEST)
        super().__init__(prog, max_help_position=26, width=max(width, 20))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            line if line.startswith(" ") else textwrap.fill(line, width, initial_indent=indent)
            for line in text.splitlines()
        )

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # As from Python 3.13 on: the value once, behind the last of its names.
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class Parser(argparse.ArgumentParser):
    """A parser whose errors suggest the command or option that was probably meant."""

    #: The parser of the command.
    below: argparse.ArgumentParser | None = None
    #: Exit status -> its meaning, where it differs from :data:`EXITS`.
    exits: Mapping[int, str] = MappingProxyType({})
    #: The output of ``--json``: path of a field -> its meaning. See :func:`explain`.
    fields: Mapping[str, str] = MappingProxyType({})
    #: Command lines, each with what it does.
    examples: Sequence[str] = ()
    _intermixed = False

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **{"formatter_class": Formatter, **options})  # type: ignore[arg-type]

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as argparse does, but allow options between two arguments of which the last is
        optional.

        argparse would take the last one to be missing as soon as it has the first (bpo-14191).
        """
        arguments = self._get_positional_actions()
        if self._intermixed or len(arguments) < 2 or arguments[-1].nargs != "?":
            return super().parse_known_args(args, namespace)
        start = argparse.Namespace(**vars(namespace)) if namespace is not None else None
        parsed, left = super().parse_known_args(args, start)
        if not left:
            return parsed, left
        self._intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and ``message`` on stderr."""
        wrong = re.search(r"invalid choice: '([^']*)'|unrecognized arguments: (-\S+)", message)
        if wrong is not None and "maybe you meant" not in message:  # newer versions of Python
            from gateway.spelling import did_you_mean

            below = self.below.format_help() if self.below is not None else ""
            options = re.findall(r"--[\w-]+", self.format_help() + below)
            choices = re.findall(r"[\w-]+", message.partition("choose from")[2])
            word = (wrong[1] or wrong[2]).partition("=")[0]
            meant = did_you_mean(word, options if wrong[2] else choices)
            if message.startswith("argument COMMAND"):
                message = f"there is no command {word!r}{meant}; `{self.prog} -h` lists them"
            else:
                message += meant
        super().error(message)


def explain(
    parser: argparse.ArgumentParser,
    about: str | None = None,
    *,
    examples: Iterable[str],
    exits: Mapping[int, str] = MappingProxyType({}),
    fields: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Put into the help of a command what its options don't tell.

    ``about`` is what it does, ``examples`` are command lines. ``exits`` says what an exit status
    means that isn't that of :data:`EXITS`. ``fields`` is what ``--json`` prints, by paths:
    ``name`` is a field of an object, ``[].name`` one of each object of a list, ``a.b`` of an
    object in an object; what stands behind it is its unit or its values. What is below a path
    that has none below it, is whatever it is. A ``?`` at its end: it may be missing.
    """
    lines = list(examples)
    parser.description = about if about is not None else parser.description
    parser.epilog = "\n".join(
        [f"example{'s' if len(lines) > 1 else ''}:", *(f"  {line}" for line in lines)]
    )
    if isinstance(parser, Parser):
        parser.examples, parser.exits, parser.fields = lines, exits, fields
