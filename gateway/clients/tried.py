"""The clients that were tried with the gateway, as tests/clients recorded it, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import orjson

#: What may be tried, in the order of the table.
THINGS: Final = (
    "chat",
    "stream",
    "tools",
    "thinking",
    "schema",
    "responses",
    "memory",
    "background",
    "completions",
    "embeddings",
    "models",
    "long waits",
    "errors",
)


class Tried(NamedTuple):
    """One client: what of it worked with the gateway, in which version and when.

    ``api``: the one that it speaks. ``date``: as in ISO 8601.
    """

    title: str
    api: str
    version: str
    date: str
    things: tuple[str, ...]


def read(file: Path) -> list[Tried]:
    """Return the record in ``file``."""
    rows = orjson.loads(file.read_bytes())
    return [Tried(**{**row, "things": tuple(row["things"])}) for row in rows]


def written(record: Iterable[Tried]) -> str:
    """Return the text of a file for :func:`read`."""
    rows = [one._asdict() for one in sorted(record, key=lambda one: (one.api, one.title.lower()))]
    return orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode() + "\n"


def table(record: Iterable[Tried]) -> Iterator[str]:
    """Yield the lines of the table, in Markdown."""
    yield "| client | version | API | tried | on |"
    yield "|---|---|---|---|---|"
    for one in record:
        things = ", ".join(sorted(one.things, key=THINGS.index))
        yield f"| {one.title} | {one.version} | {one.api} | {things} | {one.date} |"
