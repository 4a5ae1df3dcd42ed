"""The Node wrapper's ``data/authKeys.json``: bytes in, keys out. Pure but for :func:`read_legacy`.

How that file looks was never written down. These shapes are understood, and may be mixed:

- ``["KEY", ...]`` and ``[{"key": "KEY", "name": ...}, ...]``
- ``{"NAME": "KEY"}``, and the other way round ``{"KEY": "NAME"}``, ``{"KEY": <last activity>}``
- ``{"NAME": {"key": "KEY", ...}}``, and ``{"KEY": {...}}`` where no field inside is a key
- one of these under ``"keys"`` or ``"authKeys"``, and a single ``{"key": "KEY", ...}``

Which side of ``{"a": "b"}`` is the key: not a date, and not what has spaces in it; else the side
that alone looks random (16 characters or more, digits among them, no spaces); else as in the
file's other entries; else ``b``. If both look random, or have spaces, and no other entry tells,
the file is refused: a name taken for a key would let anybody in who knows the name. For the same
reason a name that doesn't look random is no key where other entries have their keys inside.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from gateway.access.key_format import MAX_KEY_CHARS, is_placeholder
from gateway.access.legacy_values import (
    Fields,
    NotUnderstood,
    first,
    flag,
    is_time,
    text,
    time_in,
)
from gateway.nesting import MAX_DEPTH, nests_deeper
from gateway.syntax import json_problem
from gateway.validation import InvalidFiles, Problem

SHORT_KEY_CHARS = 16

# Field names are compared in lower case, without "_", "-" and spaces.
_KEY = frozenset({"key", "authkey", "apikey", "token", "authtoken", "accesskey", "accesstoken"})
_NAME = ("name", "user", "username", "client", "clientname", "label", "owner", "app")
_DESCRIPTION = ("description", "desc", "comment", "note", "notes")
_ADMIN = ("admin", "isadmin")
_ACTIVITY = ("lastactivity", "lastactive", "lastused", "lastaccess", "lastseen", "lastrequest")
_CREATED = ("created", "createdat", "createdon")
_EXPIRES = ("expires", "expiresat", "expiry", "expiration", "validuntil")
_ON = ("active", "isactive", "enabled", "valid")
_OFF = ("disabled", "inactive", "revoked", "blocked", "deleted")
_FIELDS = _KEY.union(_NAME, _DESCRIPTION, _ADMIN, _ACTIVITY, _CREATED, _EXPIRES, _ON, _OFF)
_CONTAINERS = frozenset({"keys", "authkeys", "apikeys", "tokens", "clients", "users"})


@dataclass(frozen=True, slots=True)
class LegacyKey:
    """One usable entry."""

    label: str  # "entry 3", or with its name where that surely isn't the key
    key: str
    name: str
    description: str = ""
    admin: bool | None = None  # None: the entry doesn't say
    created: datetime | None = None
    last_activity: datetime | None = None
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class LegacyFile:
    """All usable entries, and what a person should know about the others and about them."""

    keys: tuple[LegacyKey, ...]
    skipped: tuple[str, ...]
    warnings: tuple[str, ...]


class _Side(enum.Enum):
    """Where the key is in ``{"a": "b"}``."""

    OUTER = "a"
    INNER = "b"
    UNSURE = "either"


class _Entry(NamedTuple):
    number: int
    outer: str | None  # the name under which it stands in an object
    value: Any

    @property
    def label(self) -> str:
        return f"entry {self.number}"


class _SwitchedOff(Exception):
    """The entry says that its key shall not work."""


def read_legacy(path: Path) -> LegacyFile:
    """Read and parse. Raises :class:`InvalidFiles`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise InvalidFiles([Problem(str(path), "", None, message)]) from error
    return parse_legacy(data, str(path))


def parse_legacy(data: bytes, file: str) -> LegacyFile:
    """Every key in ``data``. Raises :class:`InvalidFiles` naming each entry not understood."""
    try:
        entries = list(_entries(_load(data)))
    except NotUnderstood as error:
        raise InvalidFiles([Problem(file, "", None, str(error))]) from None
    sides = {_side(entry.outer, entry.value) for entry in entries} - {_Side.UNSURE}
    if any(entry.outer is not None and _has_key_field(entry.value) for entry in entries):
        sides.add(_Side.INNER)
    problems: list[Problem] = []
    keys: list[LegacyKey] = []
    skipped: list[str] = []
    warnings: list[str] = []
    for entry in entries:
        try:
            key = _read(entry, sides, warnings)
        except NotUnderstood as error:
            problems.append(Problem(file, entry.label, None, str(error)))
        except _SwitchedOff:
            skipped.append(f"{entry.label}: is switched off in the file")
        else:
            if is_placeholder(key.key):
                skipped.append(f"{key.label}: its key is a word that clients send who have none")
                continue
            keys.append(key)
            if len(key.key) < SHORT_KEY_CHARS:
                warnings.append(
                    f"{key.label}: the key has only {len(key.key)} characters and can be guessed: "
                    "replace it soon"
                )
    if problems:
        raise InvalidFiles(problems)
    return LegacyFile(tuple(keys), tuple(skipped), tuple(warnings))


def _load(data: bytes) -> Any:
    # Windows editors leave a byte order mark, and some write UTF-16.
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
        if nests_deeper(text.encode(errors="replace")):
            raise NotUnderstood(f"is nested too deeply: at most {MAX_DEPTH} levels are taken")
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise NotUnderstood(json_problem(text, error, secret=True)) from None
    except UnicodeDecodeError:
        raise NotUnderstood("is not text in UTF-8") from None
    except ValueError:  # CPython reads no integer of over 4300 digits
        raise NotUnderstood("holds a number that is too long") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotUnderstood("one object holds the same name twice")
    return found


def _entries(data: Any) -> Iterator[_Entry]:
    if isinstance(data, dict):
        held = [name for name, value in data.items() if _is_container(name, value)]
        if len(held) == 1:
            # Beside it a number or text may stand ("version": 1), but nothing that holds keys.
            if any(
                isinstance(value, dict | list) for name, value in data.items() if name != held[0]
            ):
                raise NotUnderstood(f"holds other lists or objects beside {held[0]!r}")
            data = data[held[0]]
        elif any(_plain(name) in _KEY for name in data) and _FIELDS.issuperset(map(_plain, data)):
            data = [data]
    if isinstance(data, dict):
        for number, (name, value) in enumerate(data.items(), 1):
            yield _Entry(number, name, value)
    elif isinstance(data, list):
        for number, value in enumerate(data, 1):
            yield _Entry(number, None, value)
    else:
        raise NotUnderstood("must hold a list of keys, or an object with them")


def _is_container(name: str, value: Any) -> bool:
    if isinstance(value, dict):  # a client may be called "keys", too
        return _plain(name) in _CONTAINERS and not _has_key_field(value)
    return isinstance(value, list) and _plain(name) in _CONTAINERS | _KEY


def _read(entry: _Entry, sides: set[_Side], warnings: list[str]) -> LegacyKey:
    outer, value = entry.outer, entry.value
    if isinstance(value, dict):
        return _read_object(entry, value, sides, warnings)
    if outer is None:
        return LegacyKey(entry.label, _key(value), f"imported {entry.number}")
    if value is None or value is True or value == "":
        return LegacyKey(entry.label, _outer_key(outer, sides), f"imported {entry.number}")
    if value is False:
        raise _SwitchedOff
    side = _side(outer, value)
    if side is _Side.UNSURE and isinstance(value, str) and not (" " in outer and " " in value):
        if len(sides) == 1:
            (side,) = sides
        elif not sides and not (_looks_random(outer) and _looks_random(value)):
            side = _Side.INNER
    if side is _Side.INNER:
        return _named(entry, _key(value), outer)
    if side is _Side.UNSURE:
        raise NotUnderstood("it isn't clear which side is the key")
    key = _outer_key(outer, sides)
    if isinstance(value, str) and not is_time(value):
        return _named(entry, key, value)
    used = time_in({"value": value}, ("value",))
    return LegacyKey(entry.label, key, f"imported {entry.number}", last_activity=used)


def _named(entry: _Entry, key: str, name: str, **more: Any) -> LegacyKey:
    """A key with a name; one that shows nothing is replaced, and no name is told that's a key."""
    name = _tidy(name)
    if not name or key in name:
        return LegacyKey(entry.label, key, f"imported {entry.number}", **more)
    return LegacyKey(f"{entry.label} ({name})", key, name, **more)


def _read_object(
    entry: _Entry, value: Mapping[str, Any], sides: set[_Side], warnings: list[str]
) -> LegacyKey:
    fields = {_plain(name): content for name, content in value.items()}
    if len(fields) < len(value):
        raise NotUnderstood("two of its fields have nearly the same name")
    unknown = [name for name in value if _plain(name) not in _FIELDS]
    inner = {_key(content) for name, content in fields.items() if name in _KEY}
    if len(inner) > 1:
        raise NotUnderstood("it holds two different keys")
    if inner:
        (key,) = inner
        fallback = entry.outer
    elif entry.outer is None:
        raise NotUnderstood("it holds no key")
    else:
        key, fallback = _outer_key(entry.outer, sides), None
        if any(_may_hold_a_key(key, name, value[name]) for name in unknown):
            raise NotUnderstood("it isn't clear which of its fields is the key")
    for field in unknown:
        shown = repr(field) if re.fullmatch(r"[A-Za-z_]{1,24}", field) else "a field"
        warnings.append(f"{entry.label}: {shown} isn't understood, and ignored")
    if _is_off(fields):
        raise _SwitchedOff
    return _named(
        entry,
        key,
        text(fields, _NAME) or fallback or "",
        description=_tidy(text(fields, _DESCRIPTION), 1000),
        admin=flag(fields, _ADMIN),
        created=_lenient_time(fields, _CREATED, entry, warnings),
        last_activity=_lenient_time(fields, _ACTIVITY, entry, warnings),
        expires=time_in(fields, _EXPIRES),
    )


def _may_hold_a_key(outer: str, name: str, content: Any) -> bool:
    """Whether an unknown field makes it doubtful that the name outside is the key."""
    if isinstance(content, dict | list) or _looks_random(name):
        return True
    return isinstance(content, str) and (_looks_random(content) or not _looks_random(outer))


def _side(outer: str | None, value: Any) -> _Side:
    """Where the key is, as far as this pair tells by itself."""
    if outer is None or isinstance(value, bool | dict | list | None):
        return _Side.UNSURE
    if not isinstance(value, str) or is_time(value):
        return _Side.OUTER
    spaces = (" " in outer.strip(), " " in value.strip())
    random = (_looks_random(outer), _looks_random(value))
    if spaces == (False, True) or (spaces == (False, False) and random == (True, False)):
        return _Side.OUTER
    if spaces == (True, False) or (spaces == (False, False) and random == (False, True)):
        return _Side.INNER
    return _Side.UNSURE


def _looks_random(text: str) -> bool:
    return (
        SHORT_KEY_CHARS <= len(text) <= MAX_KEY_CHARS
        and re.fullmatch(r"[!-~]+", text) is not None
        and re.search(r"\d", text) is not None
        and not is_time(text)
    )


def _key(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise NotUnderstood("the key must be text")
    if len(value) > MAX_KEY_CHARS:
        raise NotUnderstood(f"the key has over {MAX_KEY_CHARS} characters")
    if value != value.strip() or not value.isprintable():
        raise NotUnderstood("the key has spaces around it, or unprintable characters")
    return value


def _outer_key(name: str, sides: set[_Side]) -> str:
    """``name`` as the key. Refused if it's a word like "name", or a name as others are here."""
    if _plain(name) in _FIELDS | _CONTAINERS or (_Side.INNER in sides and not _looks_random(name)):
        raise NotUnderstood("it holds no key")
    return _key(name)


def _has_key_field(value: Any) -> bool:
    return isinstance(value, dict) and any(_plain(field) in _KEY for field in value)


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


def _tidy(text: str, longest: int = 100) -> str:
    """``text`` on one line, without what would upset a terminal."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(shown.split())[:longest]


def _is_off(fields: Fields) -> bool:
    """Whether it's disabled, revoked, ...: a flag, or the time when that was done."""
    if any(flag(fields, (name,)) is False for name in _ON):
        return True
    value = first(fields, _OFF)
    if isinstance(value, int | float | str) and value not in (0, 1) and is_time(value):
        return True
    return any(flag(fields, (name,)) or False for name in _OFF)


def _lenient_time(
    fields: Fields, names: tuple[str, ...], entry: _Entry, warnings: list[str]
) -> datetime | None:
    """For times that only inform: not worth refusing the file for."""
    try:
        return time_in(fields, names)
    except NotUnderstood as error:
        warnings.append(f"{entry.label}: {error}; left empty")
        return None
