"""Suggestions for a name that doesn't exist."""

from __future__ import annotations

from collections.abc import Iterable

#: The most names that are compared, and the most characters of one. Ten names take 0.1 ms.
_MOST, _LONGEST = 500, 100


def closest(word: str, known: Iterable[str], *, alike: float = 0.6) -> str | None:
    """Return the one of ``known`` that ``word`` probably means, whatever its case; or ``None``.

    ``alike`` is the ratio of :mod:`difflib`, from 0 to 1.
    """
    from difflib import get_close_matches  # for errors only

    names: dict[str, str] = {}
    for name in known:
        names.setdefault(name.casefold(), name)
    if len(word) > _LONGEST or len(names) > _MOST:
        return names.get(word.casefold())
    found = get_close_matches(word.casefold(), names, n=1, cutoff=alike)
    return names[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str], *, alike: float = 0.6) -> str:
    """Return ``", did you mean 'host'?"``, to be appended to a message about ``word``; or
    nothing.
    """
    found = closest(word, known, alike=alike)
    return f", did you mean {found!r}?" if found is not None else ""
