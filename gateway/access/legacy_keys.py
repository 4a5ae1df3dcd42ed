"""LLM-API's ``data/authKeys.json``: bytes in, keys out. Pure but for :func:`read_legacy`.

That file is an object whose names are the keys, as LLM-API's ``generateAuthKey.js`` writes it and
its server looks keys up. What a key is called, and when it was made and last used, stands in the
object behind it; each of these fields may be missing. Anything else is refused, with what is
allowed: to guess which text is a key could let in whoever knows a name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from gateway.access.key_format import MAX_KEY_CHARS, is_placeholder
from gateway.nesting import MAX_DEPTH, nests_deeper
from gateway.problems import InvalidFiles, Problem
from gateway.spelling import did_you_mean
from gateway.syntax import json_problem

#: A key with fewer characters can be guessed. LLM-API's own keys have 32.
SHORT_KEY_CHARS: Final = 16

_FIELDS: Final = ("name", "description", "createdAt", "lastActivity")
_ENTRY: Final = (
    '{"name": "phone", "description": "Bob\'s", "createdAt": "2024-03-05T10:00:00.000Z", '
    '"lastActivity": null}'
)
_FILE: Final = (
    f'must be an object with the keys as its names, as LLM-API writes it: {{"KEY": {_ENTRY}}}'
)


@dataclass(frozen=True, slots=True)
class LegacyKey:
    """One key of the file. Times are UTC, and aware."""

    label: str  # "entry 3", with its name if it has one
    key: str
    name: str
    description: str = ""
    created: datetime | None = None
    last_activity: datetime | None = None


@dataclass(frozen=True, slots=True)
class LegacyFile:
    """The keys of a file, and remarks for a person about them. No text holds a key."""

    keys: tuple[LegacyKey, ...]
    skipped: tuple[str, ...]
    warnings: tuple[str, ...]


class _EntryRefused(Exception):
    """The reason why a file or an entry is refused. It holds no text of a key."""


def read_legacy(path: Path) -> LegacyFile:
    """Read and parse a file. Raises :class:`InvalidFiles`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise InvalidFiles([Problem(str(path), "", None, message)]) from error
    return parse_legacy(data, str(path))


def parse_legacy(data: bytes, file: str) -> LegacyFile:
    """Return the keys in ``data``. Raises :class:`InvalidFiles`, which names each bad entry."""
    try:
        entries = _object_in(data)
    except _EntryRefused as error:
        raise InvalidFiles([Problem(file, "", None, str(error))]) from None
    problems: list[Problem] = []
    keys: list[LegacyKey] = []
    skipped: list[str] = []
    warnings: list[str] = []
    for number, (key, entry) in enumerate(entries.items(), 1):
        label = f"entry {number}"
        try:
            found = _read(label, f"imported {number}", key, entry)
        except _EntryRefused as error:
            problems.append(Problem(file, label, None, str(error)))
            continue
        if is_placeholder(key):
            skipped.append(f"{found.label}: its key is a word that clients send who have none")
            continue
        keys.append(found)
        if len(key) < SHORT_KEY_CHARS:
            warnings.append(
                f"{found.label}: the key has only {len(key)} characters and can be guessed: "
                "replace it soon"
            )
    if problems:
        raise InvalidFiles(problems)
    return LegacyFile(tuple(keys), tuple(skipped), tuple(warnings))


def _object_in(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode("utf-8-sig")  # Windows editors leave a byte order mark
        if nests_deeper(data):
            raise _EntryRefused(f"is nested too deeply: at most {MAX_DEPTH} levels are taken")
        found = json.loads(text, object_pairs_hook=_without_doubles)
    except json.JSONDecodeError as error:
        raise _EntryRefused(json_problem(text, error, secret=True)) from None
    except UnicodeDecodeError:
        raise _EntryRefused("is not text in UTF-8") from None
    except ValueError:  # CPython reads no integer of over 4300 digits
        raise _EntryRefused("holds a number that is too long") from None
    if not isinstance(found, dict):
        raise _EntryRefused(_FILE)
    return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _EntryRefused("one object holds the same name twice")
    return found


def _read(label: str, fallback: str, key: str, entry: Any) -> LegacyKey:
    """Return one entry; ``fallback``: the name of a key that has none to be shown."""
    if not isinstance(entry, dict):
        raise _EntryRefused(f"what stands behind a key must be an object: {_ENTRY}")
    if unknown := [name for name in entry if name not in _FIELDS]:
        raise _EntryRefused(
            f"holds something else than {', '.join(_FIELDS)}{_meant(unknown)}. The key stands "
            f'outside: "KEY": {_ENTRY}'
        )
    if not key or len(key) > MAX_KEY_CHARS:
        raise _EntryRefused(f"the key must have 1 to {MAX_KEY_CHARS} characters")
    if key != key.strip() or not key.isprintable():
        raise _EntryRefused("the key has spaces around it, or unprintable characters")
    name = _text(entry, "name", 100)
    if not name or key in name:
        name = fallback
    else:
        label = f"{label} ({name})"
    return LegacyKey(
        label,
        key,
        name,
        _text(entry, "description", 1000),
        _time(entry, "createdAt"),
        _time(entry, "lastActivity"),
    )


def _meant(unknown: list[str]) -> str:
    """Return the field that the only unknown one may have been meant as: itself may be a key."""
    return did_you_mean(unknown[0], _FIELDS) if len(unknown) == 1 else ""


def _text(entry: Mapping[str, Any], field: str, longest: int) -> str:
    """Return a text on one line, without what would upset a terminal; ``""`` if there is none."""
    value = entry.get(field)
    if value is not None and not isinstance(value, str):
        raise _EntryRefused(f"its {field} must be text, or null")
    shown = "".join(char if char.isprintable() else " " for char in value or "")
    return " ".join(shown.split())[:longest]


def _time(entry: Mapping[str, Any], field: str) -> datetime | None:
    """Return a time as JavaScript's ``toISOString`` writes it, or ``None`` for null."""
    value = entry.get(field)
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise _EntryRefused(f"its {field} must be a time like 2024-03-05T10:00:00.000Z, or null")
