"""What is saved and what that has spared, counted by model and by key. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gateway.conversations.shared import SHARED


@dataclass(slots=True)
class Counts:
    """Since the start: restores that were used, and what they spared."""

    hits: int = 0
    tokens: int = 0
    seconds: float = 0.0
    switched_off: str | None = None  # why nothing is saved any more; of models

    def count(self, tokens: int, seconds: float) -> None:
        """One more has spared so many tokens, which would have taken so long."""
        self.hits += 1
        self.tokens += tokens
        self.seconds += seconds


@dataclass(slots=True)
class Held:
    """What is on disk now. ``size`` in bytes."""

    conversations: int = 0
    size: int = 0


class Spared(NamedTuple):
    """What is on disk of a model or a key, and what that has spared since the start.

    ``seconds``: about what it would have taken to compute ``tokens``.
    """

    conversations: int
    size: int
    hits: int
    tokens: int
    seconds: float
    switched_off: str | None


class CacheReport(NamedTuple):
    """The whole cache. ``size`` and ``budget`` in bytes; ``problem``: why nothing is saved."""

    folder: str
    problem: str | None
    conversations: int
    size: int
    budget: int
    models: dict[str, Spared]
    keys: dict[str, Spared]


def spared(held: Held | None, counts: Counts | None) -> Spared | None:
    """Return both as one; ``None`` if there is neither."""
    if held is None and counts is None:
        return None
    held, counts = held or Held(), counts or Counts()
    return Spared(
        held.conversations,
        held.size,
        counts.hits,
        counts.tokens,
        counts.seconds,
        counts.switched_off,
    )


def all_spared(held: dict[str, Held], counts: dict[str, Counts]) -> dict[str, Spared]:
    """Return those of every name that has either, the largest first."""
    found = {name: spared(held.get(name), counts.get(name)) for name in {**held, **counts}}
    there = [(name, one) for name, one in found.items() if one is not None]
    return dict(sorted(there, key=lambda item: (-item[1].size, -item[1].hits, item[0])))


#: Stands for the name of the key that has what all keys use.
_SHARED_BY: Final = "shared by all keys"
#: That of a gateway that saves none.
NO_CACHE: Final = CacheReport("", None, 0, 0, 0, {}, {})


def shown(
    report: CacheReport, name_of: Callable[[str], str | None], *, enabled: bool
) -> dict[str, Any]:
    """Return the answer of ``GET /admin/cache``.

    ``name_of`` a key's id returns the key's name, if there is such a key.
    """
    keys = report.keys.items()
    return {
        "enabled": enabled,
        "folder": report.folder or None,
        "problem": report.problem,
        "conversations": report.conversations,
        "size": report.size,
        "budget": report.budget,
        "models": [{"model": name, **_shown(one)} for name, one in report.models.items()],
        "keys": [
            {
                "key": key,
                "name": _SHARED_BY if key == SHARED else name_of(key),
                **_shown(one, without="switched_off"),
            }
            for key, one in keys
        ],
    }


def _shown(one: Spared, without: str = "") -> dict[str, Any]:
    fields = {**one._asdict(), "seconds": round(one.seconds, 3)}
    fields.pop(without, None)
    return fields
