"""Sizes, durations and whole numbers as people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
    "t": 2**40,
}
_TIME_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")

#: The texts that :func:`parse_duration` and :func:`parse_size` read, for the JSON Schemas.
DURATION_TEXT: Final = r"^\s*\d+(\.\d+)?\s*([mM]?[sS]|[mMhHdDwW])?\s*$"
SIZE_TEXT: Final = r"^\s*\d+(\.\d+)?\s*([bB]|[kKmMgGtT]([iI]?[bB])?)?\s*$"
#: The largest size: sums of a few must fit into the 64 bits of JSON answers.
_LARGEST: Final = 2**60


def parse_duration(value: object) -> float:
    """Return seconds from ``30``, ``"30s"``, ``"500ms"``, ``"5m"``, ``"12h"``, ``"30d"`` or
    ``"2w"``.
    """
    return _quantity(value, _TIME_UNITS, "a duration like 30s, 5m, 12h or 30d")


def whole_number(text: str) -> int | None:
    """Return the number that ``text`` is, from 0 to 2**63 - 1 (what SQLite holds); else
    ``None``.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        return None
    number = int(text)
    return number if number < 2**63 else None


def parse_size(value: object) -> int:
    """Return bytes from ``1048576``, ``"64MiB"``, ``"8GB"`` or ``"8G"`` (which is 8 GiB)."""
    wanted = "a size like 64MiB or 8GB"
    size = _quantity(value, _SIZE_UNITS, wanted)
    if size >= _LARGEST:
        raise ValueError(f"must be {wanted}, and less than 1 EiB")
    return int(size)


def _quantity(value: object, units: Mapping[str, float], wanted: str) -> float:
    if isinstance(value, bool):
        raise ValueError(f"must be {wanted}")
    if isinstance(value, int | float):
        if not 0 <= value < float("inf"):  # false for NaN too
            raise ValueError(f"must be {wanted}, and not negative")
        return value
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    unit = match[2] if match else None
    if match is None or unit is None or unit.lower() not in units:
        raise ValueError(f"must be {wanted}")
    quantity = float(match[1]) * units[unit.lower()]
    if math.isinf(quantity):
        raise ValueError(f"must be {wanted}, and not infinite")
    return quantity
