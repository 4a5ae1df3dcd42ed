"""Describes syntax errors of JSON and YAML files, for the person who wrote them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

_JAVASCRIPT = frozenset({".js", ".cjs", ".mjs", ".ts"})
_QUOTES = "'\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"
_OTHER_WORDS = {"True": "true", "False": "false", "None": "null", "undefined": "null"}


def is_javascript(file: Path) -> bool:
    """Return whether ``file`` is a program by its name, like configurations of Node.js."""
    return file.suffix.lower() in _JAVASCRIPT


def json_problem(text: str, error: json.JSONDecodeError, *, secret: bool = False) -> str:
    """Return ``is not valid JSON, line 3, column 5: ...``; a ``secret`` text is never repeated."""
    if not text.strip():
        return "is not valid JSON: it is empty"
    found, position = _json_fault(text, error, secret=secret)
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return f"is not valid JSON, line {line}, column {column}: {found}"


def _json_fault(text: str, error: json.JSONDecodeError, *, secret: bool) -> tuple[str, int]:
    position, reason = error.pos, error.msg
    rest = text[position:].lstrip()
    before = text[:position].rstrip()
    # Where the comma is, and what follows: newer versions of Python point at it themselves.
    comma = position if rest.startswith(",") else len(before) - 1 if before.endswith(",") else None
    if comma is not None and text[comma + 1 :].lstrip()[:1] in ("}", "]"):
        return "the comma behind the last entry must go, JSON allows none there", comma
    if rest.startswith(("//", "/*", "#")):
        return "a comment: JSON has none", position
    if rest[:1] and rest[0] in _QUOTES:
        return 'texts and names stand in straight double quotes, like "this"', position
    word = re.match(r"[A-Za-z_]\w*", rest)
    if word is not None and word[0] in _OTHER_WORDS:
        return f"{word[0]} is written {_OTHER_WORDS[word[0]]}", position
    if word is not None and "property name" in reason:
        like = "" if secret else f': "{word[0][:40]}"'
        return f"names stand in double quotes{like}", position
    if reason.startswith("Invalid \\"):
        return "a backslash in a text is written twice, as in D:\\\\LLMs\\\\model.gguf", position
    if reason.startswith("Invalid control character"):
        kind = "a tab within a text is written \\t" if text[position : position + 1] == "\t" else ""
        return kind or "a line break within a text is written \\n", position
    if reason.startswith("Unterminated string"):
        return "a text has no end: its closing quote is missing", position
    if "':' delimiter" in reason and rest:
        return "a colon is missing before this, between a name and its value", position
    if "',' delimiter" in reason and rest:
        what = 'a comma is missing before this, or a " within a text that is not written \\"'
        return what, position
    if not rest:
        return "it ends too soon: a bracket or brace is not closed", position
    if reason.startswith("Extra data"):
        return "there is more behind the end of the object", position
    return reason, position


def encoding_problem(error: UnicodeDecodeError) -> str:
    """Return ``is not text in UTF-8, line 3: ...`` for the bytes of a whole file."""
    if error.object[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "is text in UTF-16, as some editors of Windows write it: save it as UTF-8"
    line = error.object.count(b"\n", 0, error.start) + 1
    return f"is not text in UTF-8, line {line}: save it in that encoding"


def yaml_problem(text: str, error: Exception) -> str:
    """Return ``is not valid YAML, line 3, column 5: ...``."""
    if isinstance(error, UnicodeDecodeError):
        return encoding_problem(error)
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"is not valid YAML: {error}"
    mark = error.problem_mark
    where = f"is not valid YAML, line {mark.line + 1}, column {mark.column + 1}"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    problem = error.problem or "cannot be understood"
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f"{where}: a tab: lines are indented with spaces"
    if "'\\t'" in problem:
        return f"{where}: a tab: only spaces may stand between words"
    if "escape" in problem:
        return (
            f"{where}: in double quotes a backslash begins an escape: write the text in single "
            "quotes, or a path with /"
        )
    if "mapping values are not allowed" in problem:
        return (
            f"{where}: this is too far indented, or the line before has no colon, or a text with a "
            "colon in it needs quotes"
        )
    if "end" in problem and "stream" in problem:
        return f"{where}: it ends too soon: a bracket, a brace or a quote is not closed"
    if problem.startswith("could not find expected ':'"):
        return f"{where}: a key without its colon before this line"
    return f"{where}: {problem}"
