"""What the commands that change models.json have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.models import editing
from gateway.models.catalog import parse_catalog


def add_entries(
    file: Path, before: bytes, entries: Mapping[str, Any], *, keep: bool = True
) -> None:
    """Write ``entries`` behind those in ``file``, which held ``before``, and say so.

    ``keep``: whether what it held stays beside it.

    Raises :class:`gateway.problems.InvalidFiles` for what would not be served, and
    :class:`editing.NotWritten`.
    """
    text = editing.with_entries(before.decode("utf-8-sig"), entries, file=str(file))
    parse_catalog(text, file=str(file))
    editing.replace(file, text, before=before, keep=keep)
    kept = _kept(file, before) if keep else ""
    print(f"\n{len(entries)} written to {file}{kept}: {', '.join(entries)}")


def remove_entry(file: Path, before: bytes, name: str) -> None:
    """Write the file without the entry ``name``, and report it. See :func:`add_entries`."""
    text = editing.without_entry(before.decode("utf-8-sig"), name, file=str(file))
    editing.replace(file, text, before=before)
    print(f"{name} removed from {file}{_kept(file, before)}")


def _kept(file: Path, before: bytes) -> str:
    return f" (as it was: {file.name}~)" if before else ""
