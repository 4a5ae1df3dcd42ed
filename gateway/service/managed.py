"""Files that are made by us and may be edited by their owner: an edit is never overwritten."""

from __future__ import annotations

import hashlib
from enum import Enum
from pathlib import Path
from typing import Final

_MARK: Final = "# SHA-256 of what follows, as written by llm-gateway: "


class Written(Enum):
    """The result of writing a file."""

    NEW = "wrote"
    SAME = "kept"
    UPDATED = "updated"
    #: The owner has changed the file: ours was written beside it, with ``.new`` appended.
    EDITED = "left as you edited it"


def write(file: Path, text: str, mode: int = 0o644) -> Written:
    """Write ``text``, marked as ours; an edited file stays, and ours goes beside it.

    Raises ``OSError``. Blocks.
    """
    whole, found = _marked(text), compare(file, text)
    if found is Written.EDITED:
        _replace(beside(file), whole, mode)
        return found
    beside(file).unlink(missing_ok=True)  # of an edit that is no more
    if found is not Written.SAME:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        _replace(file, whole, mode)
    return found


def compare(file: Path, text: str) -> Written:
    """Return what :func:`write` would return, and do nothing."""
    try:
        there = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Written.NEW
    if there == _marked(text):
        return Written.SAME
    return Written.UPDATED if is_ours(there) else Written.EDITED


def beside(file: Path) -> Path:
    """Return where our text of an edited file is."""
    return file.with_name(f"{file.name}.new")


def is_ours(text: str) -> bool:
    """Return whether ``text`` is as we have written it."""
    first, _, rest = text.partition("\n")
    return first.startswith(_MARK) and first.removeprefix(_MARK) == _digest(rest)


def remove(file: Path) -> bool:
    """Remove ``file`` and what was written beside it; return whether there was something."""
    found = [each for each in (file, beside(file)) if each.exists()]
    for each in found:
        each.unlink()
    return bool(found)


class Originals:
    """The files as they were, to be put back if what replaced them doesn't work."""

    def __init__(self) -> None:
        self._found: dict[Path, str | None] = {}

    def keep(self, file: Path) -> None:
        """Note how ``file`` is, before it is written or removed for the first time."""
        for each in (file, beside(file)):
            if each not in self._found:
                self._found[each] = each.read_text(encoding="utf-8") if each.exists() else None

    def put_back(self) -> list[Path]:
        """Put back what differs, and return the files that did."""
        changed = []
        for file, text in self._found.items():
            now = file.read_text(encoding="utf-8") if file.exists() else None
            if now == text:
                continue
            changed.append(file)
            if text is None:
                file.unlink()
            else:
                _replace(file, text, 0o644)
        return changed


def _marked(text: str) -> str:
    return f"{_MARK}{_digest(text)}\n{text}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(file: Path, text: str, mode: int) -> None:
    new = file.with_name(f".{file.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(mode)
    new.replace(file)
