"""Tables: on a terminal as wide as the terminal, otherwise one line for each row."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from gateway.cli.terminal import clean, console, is_terminal, size_of, style_of

if TYPE_CHECKING:
    from rich.table import Table

#: Spaces between two columns.
_GAP: Final = 2
#: Widths up to which a column, and a word, aren't broken into lines.
_SHORT, _WORD = 12, 24
#: How many characters stay of a text that may be cut off.
_CUT: Final = 18
#: A right-aligned cell: a number, with or without a unit, or no number.
_NUMBER: Final = re.compile(r"(?:[-+]?[\d][\d.,:/]*(?: ?(?:%|s|ms|[KMGT]iB|B|t/s|x\d+))?|-|\?)?")
_STATES: Final = frozenset({"STATE", "STATUS"})


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table on stdout. Cells may hold anything: what a terminal would act on is escaped.

    Columns of numbers stand at the right. Where a terminal is too narrow for the columns side by
    side, even with long texts broken into lines, each row becomes a block with a line per column.
    Where it is no terminal, there is one line per row, with two spaces or more between columns.
    """
    names = [clean(name) for name in header]
    cells = [[clean(cell) for cell in row] for row in rows]
    if not is_terminal(sys.stdout):
        _plain(names, cells)
        return
    out = console(sys.stdout)
    table = in_columns(names, cells, size_of(sys.stdout)[0])
    out.print(_in_blocks(names, cells) if table is None else table)


def _plain(names: list[str], cells: list[list[str]]) -> None:
    columns = list(zip(names, *cells, strict=True))
    widths = [max(map(_width, column)) for column in columns]
    right = [_is_number(column[1:]) for column in columns]
    for row in (names, *cells):
        padded = [
            " " * (width - _width(cell)) + cell if is_right else cell + " " * (width - _width(cell))
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ]
        print((" " * _GAP).join(padded).rstrip())


def in_columns(
    names: Sequence[str],
    cells: Sequence[Sequence[str]],
    width: int,
    *,
    wrap: bool = True,
    numbers: Collection[str] = (),
) -> Table | None:
    """Return a table for a terminal of ``width`` columns; ``None`` if that is too narrow.

    Cells are :func:`clean`. Without ``wrap``, what doesn't fit is cut off with an ellipsis.
    ``numbers``: columns that are aligned to the right whatever is in them.
    """
    from rich.table import Table
    from rich.text import Text

    columns = list(zip(names, *cells, strict=True))
    right = [column[0] in numbers or _is_number(column[1:]) for column in columns]
    widest = [max(map(_width, column)) for column in columns]
    least = [
        size if number else _least(column, size) if wrap else min(size, _CUT)
        for column, size, number in zip(columns, widest, right, strict=True)
    ]
    widths = _fitted(widest, least, width - _GAP * (len(columns) - 1))
    if widths is None:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for name, size, is_right in zip(names, widths, right, strict=True):
        table.add_column(
            Text(name),
            width=size,
            justify="right" if is_right else "left",
            overflow="fold" if wrap else "ellipsis",
            no_wrap=not wrap,
        )
    states = {number for number, name in enumerate(names) if name in _STATES}
    for row in cells:
        table.add_row(
            *(
                Text(cell, style_of(cell) if number in states else "")
                for number, cell in enumerate(row)
            )
        )
    return table


def _in_blocks(names: list[str], cells: list[list[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, _GAP, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for count, row in enumerate(cells):
        if count:
            table.add_row()
        for number, (name, cell) in enumerate(zip(names, row, strict=True)):
            style = style_of(cell) if name in _STATES else "" if number else "bold"
            table.add_row(Text(name, "dim"), Text(cell, style))
    return table


def _least(column: Sequence[str], widest: int) -> int:
    """Return the width down to which a column of texts may shrink."""
    if widest <= _SHORT:
        return widest
    words = [word for cell in column for word in cell.split()]
    return max(min(max(map(_width, words), default=0), _WORD), _SHORT)


def _fitted(widest: Sequence[int], least: Sequence[int], room: int) -> list[int] | None:
    """Return widths that fit into ``room``, shrinking the widest first; ``None`` if there
    are none.
    """
    if sum(least) > room:
        return None
    widths = list(widest)
    for _ in range(sum(widths) - room):
        may = [number for number, width in enumerate(widths) if width > least[number]]
        widths[max(may, key=widths.__getitem__)] -= 1
    return widths


def _is_number(cells: Iterable[str]) -> bool:
    filled = [cell for cell in cells if cell not in ("", "-", "?")]
    return bool(filled) and all(_NUMBER.fullmatch(cell) for cell in filled)


def _width(text: str) -> int:
    """Return the columns that ``text`` takes: two for wide characters (UAX 11), none for
    combining ones.
    """
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(character)
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )
