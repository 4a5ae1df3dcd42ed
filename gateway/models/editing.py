"""Edits of the text of models.json that leave everything else in it unchanged.

The file is people's own: the order of its entries, its indentation, line ends and blank lines are
kept, and so is what this version knows nothing of. Text in, text out, but for :func:`write`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from json.decoder import JSONDecoder, scanstring  # type: ignore[attr-defined]
from json.encoder import JSONEncoder
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.errors import BadRequest, Forbidden
from gateway.private_files import make_folder
from gateway.problems import InvalidFiles, Problem
from gateway.syntax import json_problem

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_INDENT: Final = "  "


class Member(NamedTuple):
    """One entry of the outermost object: where it begins, and its value begins and ends."""

    name: str
    start: int
    value: int
    end: int


class ChangedMeanwhile(BadRequest):
    """Somebody else has written the file since it was read."""

    status = 412
    default_code = "changed_meanwhile"


class NotWritten(Forbidden):
    """models.json may not be written, or can't be."""

    default_code = "not_writable"

    def __init__(self, file: Path, error: OSError) -> None:
        reason = error.strerror or str(error)
        if error.errno == errno.EBUSY:
            reason = (
                "it is mounted by itself, as a container's volume may be, and can't be replaced as "
                "a whole then: mount its folder"
            )
        super().__init__(f"{file} cannot be written: {reason}")


class DiskFull(NotWritten):
    """507: the disk is full, or its owner's quota is used up (RFC 4918, 11.5)."""

    status = 507
    type = "api_error"
    default_code = "disk_full"
    retryable = False


#: The errors of a full disk or quota.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def not_written(file: Path, error: OSError) -> NotWritten:
    """Return what is raised where ``file`` can't be written because of ``error``."""
    return (DiskFull if error.errno in _FULL else NotWritten)(file, error)


def members(text: str, *, file: str = "models.json") -> list[Member]:
    """Return the entries of the object that ``text`` is. Raises :class:`InvalidFiles`."""
    try:
        if not isinstance(json.loads(text), dict):
            wanted = 'must be an object: {"model name": {"params": ...}}'
            raise InvalidFiles([Problem(file, "", None, wanted)])
    except json.JSONDecodeError as error:
        raise InvalidFiles([Problem(file, "", None, json_problem(error.doc, error))]) from None
    except RecursionError:
        raise InvalidFiles([Problem(file, "", None, "is nested too deeply")]) from None
    return list(_members(text))


def _members(text: str) -> Iterator[Member]:
    """Yield those of what is known to be a JSON object."""
    value_of = JSONDecoder().raw_decode
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        start = at
        name, at = scanstring(text, at + 1, True)
        at = _skip(text, _skip(text, at) + 1)
        value = at
        _, at = value_of(text, at)
        yield Member(name, start, value, at)
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)


def with_entries(
    text: str, entries: Mapping[str, Any], *, file: str = "models.json", unit: str | None = None
) -> str:
    """Return ``text`` with ``entries`` appended in its style.

    ``unit``: by how much each level is indented, if not as the entries are. An empty text is an
    empty object. Raises :class:`InvalidFiles` where ``text`` is no JSON object, and ``ValueError``
    for a name that it has already.
    """
    if not entries:
        return text
    text = text if text.strip() else "{}\n"
    present = members(text, file=file)
    if taken := {member.name for member in present} & entries.keys():
        raise ValueError(f"there is an entry {min(taken)!r} already")
    newline = "\r\n" if "\r\n" in text else "\n"
    if not present:
        start = text.index("{") + 1
        end = text.rindex("}")
        written = f",{newline}".join(
            _member(name, entry, _INDENT, newline) for name, entry in entries.items()
        )
        return f"{text[:start]}{newline}{written}{newline}{text[end:]}"
    last = present[-1].end
    between = text[text.index("{") + 1 : present[0].start]
    if "\n" not in between:  # all on one line
        written = "".join(
            f", {json.dumps(name, ensure_ascii=False)}: {json.dumps(entry, ensure_ascii=False)}"
            for name, entry in entries.items()
        )
    else:
        indent = between.rpartition("\n")[2]
        written = "".join(
            f",{newline}{_member(name, entry, indent, newline, unit)}"
            for name, entry in entries.items()
        )
    return text[:last] + written + text[last:]


def without_entry(text: str, name: str, *, file: str = "models.json") -> str:
    """Return ``text`` without the entry ``name``. Raises :class:`InvalidFiles` and ``KeyError``."""
    present = members(text, file=file)
    index = next((i for i, member in enumerate(present) if member.name == name), None)
    if index is None:
        raise KeyError(name)
    if len(present) == 1:
        return text[: text.index("{") + 1] + text[text.rindex("}") :]
    if index + 1 < len(present):
        return text[: present[index].start] + text[present[index + 1].start :]
    return text[: present[index - 1].end] + text[present[index].end :]


def with_entry(text: str, name: str, entry: Any, *, file: str = "models.json") -> str:
    """Return ``text`` with ``entry`` under ``name``: in place of the present one, else at the end.

    Only the parts of a present entry that differ are rewritten. Raises :class:`InvalidFiles`.
    """
    text = text if text.strip() else "{}\n"
    present = next((one for one in members(text, file=file) if one.name == name), None)
    if present is None:
        return with_entries(text, {name: entry}, file=file)
    style = _TextStyle("\r\n" if "\r\n" in text else "\n", _unit(text))
    indent = _indent_at(text, text.rfind("\n", 0, present.start) + 1)
    flat = "\n" not in text.strip()
    written = _changed(text[present.value : present.end], entry, indent, style, flat=flat)
    return text[: present.value] + written + text[present.end :]


class _TextStyle(NamedTuple):
    """The style of a file: its line ends, and by how much each level is indented."""

    newline: str
    unit: str


def _changed(text: str, value: Any, indent: str, style: _TextStyle, *, flat: bool) -> str:
    """Return ``text``, a JSON value in a line indented by ``indent``, changed to ``value``.

    ``flat``: what it stands in is on one line.
    """
    old = json.loads(text)
    if _same(old, value):
        return text
    flat = flat or (isinstance(old, dict | list) and bool(old) and "\n" not in text)
    kept = isinstance(old, dict) and isinstance(value, dict) and old.keys() & value.keys()
    if not kept:
        if flat:
            return json.dumps(value, ensure_ascii=False)
        lines = JSONEncoder(ensure_ascii=False, indent=style.unit).encode(value)
        return lines.replace("\n", style.newline + indent)
    for name in [name for name in old if name not in value]:
        text = without_entry(text, name)
    for one in reversed(members(text)):
        line = text.rfind("\n", 0, one.start) + 1
        inner = _indent_at(text, line) if line else indent
        written = _changed(text[one.value : one.end], value[one.name], inner, style, flat=flat)
        text = text[: one.value] + written + text[one.end :]
    new = {name: inner for name, inner in value.items() if name not in old}
    return with_entries(text, new, unit=style.unit)


def _same(one: Any, other: Any) -> bool:
    """Return whether both are the same in JSON, where 1 and true are not, nor 1 and 1.0."""
    return json.dumps(one) == json.dumps(other)


def _indent_at(text: str, at: int) -> str:
    """Return the white space that a line begins with."""
    match = re.compile(r"[ \t]*").match(text, at)
    return match[0] if match is not None else ""


def _unit(text: str) -> str:
    """Return the indentation of each level of a file."""
    match = re.search(r"\{[ \t]*\r?\n([ \t]+)\S", text)
    return match[1] if match is not None else _INDENT


def _member(name: str, entry: Any, indent: str, newline: str, unit: str | None = None) -> str:
    """Return ``"name": entry`` on lines of its own, indented from ``indent`` on."""
    lines = JSONEncoder(ensure_ascii=False, indent=unit or indent or _INDENT).encode(entry)
    key = json.dumps(name, ensure_ascii=False)
    return f"{indent}{key}: " + lines.replace("\n", newline + indent)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match is not None else at


# --- the file --------------------------------------------------------------------------------


def read(file: Path) -> bytes:
    """Return what stands in ``file``; nothing, where there is none. Blocking. Raises
    ``OSError``.
    """
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def replace(file: Path, text: str, *, before: bytes, keep: bool = True) -> None:
    """Do the same as :func:`write`, but make the folder if necessary.

    Blocking. Raises :class:`NotWritten`, of which :class:`DiskFull` is one, and
    :class:`ChangedMeanwhile`.
    """
    try:
        make_folder(file.resolve().parent)
        write(file, text, before=before, keep=keep)
    except OSError as error:
        raise not_written(file, error) from None


def write(file: Path, text: str, *, before: bytes, keep: bool = True) -> None:
    """Replace ``file``, which held ``before``, by ``text``; that stays beside it as ``FILE~``.

    Unless ``keep`` is false: nobody misses what was written by the same command.

    A reader finds either the old or the new file, complete, even after a power failure. Of several
    concurrent writers, in any process, one succeeds. The target of a link is replaced, and not the
    link; modes stay. Blocking. Raises ``OSError``, :class:`ChangedMeanwhile`.
    """
    file = file.resolve()
    data = text.encode()
    if before.startswith(b"\xef\xbb\xbf") and not data.startswith(b"\xef\xbb\xbf"):
        data = b"\xef\xbb\xbf" + data
    mode = file.stat().st_mode & 0o7777 if file.exists() else 0o600
    if file.exists() and not os.access(file, os.W_OK):
        # Its folder may allow a replacement, but a read-only file is meant to stay.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        with contextlib.ExitStack() as ends:
            new = _written_next_to(file, data, mode)
            ends.callback(new.unlink, missing_ok=True)
            old = _written_next_to(file, before, mode)
            ends.callback(old.unlink, missing_ok=True)
            # Editors know no lock: between this look and the end nothing is waited for.
            if read(file) != before:
                raise ChangedMeanwhile(f"{file.name} was changed by somebody else meanwhile")
            if before and keep:
                old.replace(file.with_name(f"{file.name}~"))
            new.replace(file)
        os.fsync(folder)
    finally:
        os.close(folder)


def _written_next_to(file: Path, data: bytes, mode: int) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            if file.exists():
                with contextlib.suppress(PermissionError):  # it is of a group that we aren't in
                    os.fchown(stream.fileno(), -1, file.stat().st_gid)
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path
