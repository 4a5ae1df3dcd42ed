"""Keys and prompts in what gateways write down: logs, llama-server's own log, and databases.

Each test is looked at by itself (``nothing_leaks`` in conftest.py), so that the one that shows a
leak is the one that fails. A key is known by its form; a prompt is any longer text that a test
sends, or that its module puts where a request has one. Shorter ones ("hi") could be in a log by
chance.

Keys may be where somebody is to read them: in what commands print, in the greeting of the first
start, in ``first-admin-key.txt``, and in the files of clients. Prompts may be in saved
conversations and answers, and personalities in models.json. None of that is searched.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

#: A whole key of ours; tests make up shorter ones, which nobody has.
_KEY: Final = re.compile(rb"llmgw_[0-9A-Za-z]{49}")
#: The lines of the first start's greeting that have the key: for whoever starts a gateway.
_GREETING: Final = re.compile(r"  (llmgw_\w+$|https?://\S+/#key=\w+$|curl .*-H 'Authorization: )")
#: Fields of requests that hold what somebody said.
_SAID: Final = frozenset({"content", "prompt", "input", "query", "suffix", "system", "text"})
#: Characters of a text that is in no log by chance.
_LONG: Final = 12
#: Loggers of this process that are a gateway's: its own, and those of what it runs on.
_LOGGERS: Final = ("gateway", "aiohttp", "asyncio")

#: What processes write: the lines so far, and how many of them have been looked at.
_logs: list[tuple[list[str], int]] = []
#: What the test that runs has sent, and what models' programs have written meanwhile.
_sent: set[str] = set()
_children: list[str] = []


def follow(lines: list[str]) -> None:
    """Look at ``lines`` at the end of each test, as they become more."""
    _logs.append((lines, 0))


def add_childs(lines: Iterable[str]) -> None:
    """Look at ``lines`` of a llama-server at the end of the test."""
    _children.extend(lines)


def sent(body: Any) -> None:
    """Note what a request says, so that it is looked for."""
    if isinstance(body, dict):
        for name, value in body.items():
            _sent.update(_texts(value) if name in _SAID else ())
            sent(value)
    elif isinstance(body, list):
        for value in body:
            sent(value)


class _Heard(logging.Handler):
    """What gateways within this process log."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] in _LOGGERS:
            self.lines.append(self.format(record))


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """All that is logged in the block; complete when it is over."""
    heard, root, ours = _Heard(), logging.getLogger(), logging.getLogger("gateway")
    root.addHandler(heard)
    before = ours.level
    ours.setLevel(logging.DEBUG)
    try:
        yield heard.lines
    finally:
        ours.setLevel(before)
        root.removeHandler(heard)
        heard.lines += _new_lines()


def _new_lines() -> list[str]:
    found, _children[:] = [*_children], []
    for place, (lines, seen) in enumerate(_logs):
        new = lines[seen:]
        _logs[place] = lines, seen + len(new)
        found += [line for line in new if not _GREETING.match(line)]
    return found


def leaks(lines: Iterable[str], folder: Path | None, module: str) -> list[str]:
    """What is in ``lines``, or in a database below ``folder``, that nobody may write.

    ``module``: whose texts are prompts, besides those that were :func:`sent` since the last call.
    """
    said = _prompts(module) | _as_written(_sent)
    _sent.clear()
    whole = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    text = whole.encode("utf-8", "surrogateescape")
    found = [f"a log: {leak}" for leak in _found_in(text, said)]
    for file in () if folder is None else folder.rglob("gateway.db*"):
        found += [f"{file}: {leak}" for leak in _found_in(file.read_bytes(), said)]
    return found


def _found_in(text: bytes, said: Iterable[bytes]) -> list[str]:
    """Keys and prompts, each with what surrounds it."""
    places = [(match.start(), match.end()) for match in _KEY.finditer(text)]
    places += [(at, at + len(one)) for one in said if (at := text.find(one)) >= 0]
    return [text[max(start - 200, 0) : end + 80].decode("latin-1") for start, end in places]


@functools.cache
def _prompts(module: str) -> frozenset[bytes]:
    """The longer texts that a module puts into requests, by name or as they are."""
    loaded = sys.modules[module]
    assert loaded.__file__ is not None
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(loaded.__file__).read_text())):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in _SAID:
                    found.update(_texts(_value(value, vars(loaded))))
    return _as_written(found)


def _value(value: ast.expr, names: dict[str, Any]) -> Any:
    if isinstance(value, ast.Name):
        return names.get(value.id)
    return value.value if isinstance(value, ast.Constant) else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) >= _LONG and " " in value:
        yield value


def _as_written(texts: Iterable[str]) -> frozenset[bytes]:
    """Each text as it is, in JSON, and as Python shows it."""
    forms = ((text, json.dumps(text)[1:-1], repr(text)[1:-1]) for text in texts)
    return frozenset(form.encode("utf-8", "surrogatepass") for three in forms for form in three)
