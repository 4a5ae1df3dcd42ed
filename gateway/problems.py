"""A wrong value in a file as a :class:`Problem` that names file, key, value and what is allowed.

Configuration, models.json and keys share it, so that ``llm-gateway check`` can list every problem
of all at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one file, worded for the person who has to repair it."""

    file: str
    key: str
    value: str | None
    message: str
    allowed: str | None = None

    def __str__(self) -> str:
        where = "".join(f"{part}: " for part in (self.file, self.key) if part)
        got = f" (got {self.value})" if self.value is not None else ""
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        return f"{where}{self.message}{got}{allowed}"


class InvalidFiles(Exception):
    """A configuration or models.json with at least one problem; nothing of it is used."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


#: Keys whose values aren't repeated, including all of ``env``, because nobody knows which are
#: secret.
_SECRET_KEY = re.compile(
    r"passphrase|password|secret|token(?!s)|api_?key|(^|\.)key$|\.env(\.|$)|^store(\.|$)",
    re.IGNORECASE,
)
#: Keys with arguments of llama-server, each of which may be a secret.
_ARGUMENTS = re.compile(r"\.extra_?args(\.|$)", re.IGNORECASE)
_SECRET_ARGUMENT = re.compile(r"(--?[\w-]*(?:key|token|pass)[\w-]*=)[^'\"]+", re.IGNORECASE)


def shown(key: str, value: object) -> str:
    """Return ``value`` for an error message: short, and hidden if the key names a secret."""
    if _SECRET_KEY.search(key) or (isinstance(value, list | dict) and _ARGUMENTS.search(key)):
        return "a hidden value"
    text = re.sub(r"//[^/@\s]*@", "//...@", repr(value))  # a user and password in a url
    # An argument that has one behind its name.
    text = _SECRET_ARGUMENT.sub(r"\1...", text)
    return text if len(text) <= 80 else f"{text[:77]}..."


def reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a JSON key given twice, as ``object_pairs_hook``: one of them would be lost."""
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"the key {key[:100]!r} is given twice in one object")
        seen[key] = value
    return seen
