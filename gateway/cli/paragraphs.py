"""Sentences on stdout: on a terminal wrapped to its width, otherwise one line each."""

from __future__ import annotations

import sys
import textwrap
from typing import Final

from gateway.cli.terminal import clean, console, is_terminal, size_of

#: The widest line of prose, even in a wider terminal.
_WIDEST: Final = 100


def print_paragraph(text: str, *, mark: str = "", style: str = "", indent: int = 0) -> None:
    """Write ``text`` behind ``mark``, in ``style`` (one of rich's) where there are colours.

    Further lines stand below its first, ``indent`` columns further in. Words are never
    broken, so that a path or a command can be copied. What a terminal would act on is escaped.
    """
    text, mark = clean(text), clean(mark)
    if not is_terminal(sys.stdout):
        print(f"{mark}{text}")
        return
    lines = textwrap.wrap(
        text,
        min(size_of(sys.stdout)[0], _WIDEST),
        initial_indent=mark,
        subsequent_indent=" " * (len(mark) + indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
    from rich.text import Text

    whole = Text("\n".join(lines))
    if style and mark:
        whole.stylize(style, 0, len(mark))
    console(sys.stdout).print(whole, soft_wrap=True)
