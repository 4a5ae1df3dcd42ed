"""The terminal that commands write to, if it is one.

rich is imported only for a terminal, because that takes longer than many a command itself. Into a
pipe or a file goes plain text. Texts of others (names, errors, logs) go through :func:`clean`
first, as they may contain what a terminal would take for a command.
"""

from __future__ import annotations

import io
import os
import re
import sys
import textwrap
from collections.abc import Mapping
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

#: The assumed columns and lines of a terminal that doesn't tell (a serial line, `docker exec`).
_USUAL: Final = (80, 24)
#: Control characters (ECMA-48), characters that reorder text (UAX 9) or break lines invisibly, and
#: bytes of file names that are not UTF-8.
_UNSAFE: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_WHITE: Final = re.compile(r"[\t\r\n]+")

_STYLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        word: style
        for style, words in {
            "green": "ready ok loaded done running",
            "yellow": "starting loading draining stopping backoff waiting warning reading making",
            "red": "failed error broken revoked expired",
            "dim": "stopped not unknown unloaded idle",
        }.items()
        for word in words.split()
    }
)


def clean(text: str, *, lines: bool = False) -> str:
    """Return ``text`` with all that a terminal would act on made visible, as ``\\x1b``.

    ``lines``: line ends and tabs stay what they are; else each is a space.
    """
    if not lines:
        text = _WHITE.sub(" ", text)
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_visible, text)


def _visible(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def is_terminal(stream: IO[str] | None) -> bool:
    """Return whether ``stream`` is a terminal that somebody looks at."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def moves(stream: IO[str] | None) -> bool:
    """Return whether ``stream`` can be redrawn: a terminal that isn't dumb."""
    return is_terminal(stream) and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


def size_of(stream: IO[str]) -> tuple[int, int]:
    """Return the columns and lines of a terminal as they are now; usual ones if it doesn't say."""
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns = lines = 0
    if columns > 0 and lines > 0:
        return columns, lines
    told = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    numbers = [int(word) if word.isdecimal() else 0 for word in told]
    return numbers[0] or columns or _USUAL[0], numbers[1] or lines or _USUAL[1]


def console(stream: IO[str]) -> Console:
    """Return a terminal for rich, as wide as it is now. Texts are never taken for markup.

    With ``NO_COLOR`` (no-color.org), or on a dumb terminal, it writes no styles at all.
    """
    from rich.console import Console

    columns, lines = size_of(stream)
    plain = not has_colours(stream)
    return Console(
        file=stream,
        force_terminal=True,
        force_interactive=moves(stream),
        color_system=None if plain else "auto",
        no_color=plain,
        width=columns,
        height=lines,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
        legacy_windows=False,
    )


def style_of(words: str) -> str:
    """Return the style of a state by its first word; none if it is neither good nor bad."""
    first = words.partition(" ")[0].lower().rstrip(":,")
    if first.isdecimal() and len(first) == 3:  # a status of HTTP
        return "red" if first >= "500" else "yellow" if first >= "400" else ""
    return _STYLES.get(first, "")


def has_colours(stream: IO[str]) -> bool:
    """Return whether styles may be written to ``stream``."""
    return moves(stream) and not os.environ.get("NO_COLOR")


def say(text: str, stream: IO[str] | None = None) -> None:
    """Write ``text`` on stderr, or ``stream``; on a terminal, lines break between words."""
    stream = stream or sys.stderr
    if is_terminal(stream):
        width = size_of(stream)[0] - 1
        text = "\n".join(
            textwrap.fill(line, max(width, 20), break_long_words=False, break_on_hyphens=False)
            for line in text.splitlines()
        )
    print(text, file=stream, flush=True)


def never_fail() -> None:
    """Write characters that stdout and stderr cannot encode as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def open_what_is_closed() -> None:
    """Open ``/dev/null`` for a standard stream that the shell has closed (``>&-``).

    Python has ``None`` for it, and the next file or socket that is opened would take its number.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def discard_output() -> None:
    """Discard what stdout has not taken: Python would try again, and complain, as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
