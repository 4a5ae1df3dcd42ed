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
    whole = _marked(text)
    try:
        there = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        there = None
    if there == whole:
        return Written.SAME
    if there is not None and not is_ours(there):
        _replace(file.with_name(f"{file.name}.new"), whole, mode)
        return Written.EDITED
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    _replace(file, whole, mode)
    return Written.NEW if there is None else Written.UPDATED


def is_ours(text: str) -> bool:
    """Return whether ``text`` is as we have written it."""
    first, _, rest = text.partition("\n")
    return first.startswith(_MARK) and first.removeprefix(_MARK) == _digest(rest)


def remove(file: Path) -> bool:
    """Remove ``file`` and what was written beside it; return whether there was something."""
    found = [each for each in (file, file.with_name(f"{file.name}.new")) if each.exists()]
    for each in found:
        each.unlink()
    return bool(found)


def _marked(text: str) -> str:
    return f"{_MARK}{_digest(text)}\n{text}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(file: Path, text: str, mode: int) -> None:
    new = file.with_name(f".{file.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(mode)
    new.replace(file)
