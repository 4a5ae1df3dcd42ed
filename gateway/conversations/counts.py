"""What is saved and what that has spared, counted by model and by key. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from gateway.conversations.shared import SHARED


@dataclass(slots=True)
class Hits:
    """Requests whose prompts were there, and what that spared."""

    hits: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def count(self, tokens: int, seconds: float, hits: int = 1) -> None:
        """One more, or so many, have spared these tokens, which would have taken so long."""
        self.hits += hits
        self.tokens += tokens
        self.seconds += seconds


@dataclass(slots=True)
class Counts:
    """Since the start: hits of what was read back from ``disk`` and of what was live in a ``slot``,
    and the bytes of files that llama-server has read and written.
    """

    disk: Hits = field(default_factory=Hits)
    slot: Hits = field(default_factory=Hits)
    bytes_read: int = 0
    bytes_written: int = 0
    switched_off: str | None = None  # why nothing is saved any more; of models
    not_private: str | None = None  # why a key may notice what another one asked; of models


@dataclass(slots=True)
class Live:
    """Hits of what was live in slots, and their tokens, which are yet to be counted."""

    hits: int = 0
    tokens: int = 0


class Tally:
    """The counts of each model, and of each key.

    Most requests are hits of what is live in a slot. They only add to what :meth:`live` returns,
    until somebody reads the counts and has it gathered before.
    """

    def __init__(self) -> None:
        self._live: dict[tuple[str, str, str], Live] = defaultdict(Live)
        self.models: dict[str, Counts] = defaultdict(Counts)
        self.keys: dict[str, Counts] = defaultdict(Counts)

    def hit(
        self, model: str, owner: str | None, tokens: int, seconds: float, *, restored: bool
    ) -> None:
        """A request of the key ``owner``, if that is known, was spared so many tokens."""
        for counts in self._of(model, owner):
            (counts.disk if restored else counts.slot).count(tokens, seconds)

    def live(self, model: str, fingerprint: str, owner: str) -> Live:
        """Return where hits are noted of ``owner``'s conversations, live in such a process."""
        return self._live[model, fingerprint, owner]

    def gather(self, seconds: Callable[[str, int], float]) -> None:
        """Count what was noted; ``seconds`` returns how long such a process takes to compute so
        many tokens.
        """
        for (model, fingerprint, owner), live in self._live.items():
            if live.hits:
                spared = seconds(fingerprint, live.tokens)
                for counts in self._of(model, owner):
                    counts.slot.count(live.tokens, spared, live.hits)
                live.hits = live.tokens = 0

    def transferred(self, model: str, owner: str, *, read: int = 0, written: int = 0) -> None:
        """So many bytes of ``owner``'s conversations were read or written."""
        for counts in self._of(model, owner):
            counts.bytes_read += read
            counts.bytes_written += written

    def _of(self, model: str, owner: str | None) -> Iterator[Counts]:
        yield self.models[model]
        if owner is not None:
            yield self.keys[owner]


@dataclass(slots=True)
class Held:
    """What is on disk now. ``size`` in bytes."""

    conversations: int = 0
    size: int = 0


class Spared(NamedTuple):
    """What is on disk of a model or a key, and what has been spared since the start.

    ``hits``, ``tokens``, ``seconds``: by what was read back; ``seconds`` is about what it would
    have taken to compute ``tokens``. ``slot_...``: the same by what was live in a slot.
    """

    conversations: int
    size: int
    hits: int
    tokens: int
    seconds: float
    slot_hits: int
    slot_tokens: int
    slot_seconds: float
    bytes_read: int
    bytes_written: int
    switched_off: str | None
    not_private: str | None


class SavedOpening(NamedTuple):
    """What conversations begin with: a ``personality``, or also ``tools``. ``used``: when last, in
    seconds since 1970.
    """

    model: str
    key: str
    kind: Literal["personality", "tools"]
    size: int
    tokens: int
    used: float


class SavedOnNode(NamedTuple):
    """What is on the disk of a ``node``. ``size`` and ``budget`` in bytes, which is 0 while that
    isn't known; ``problem``: why nothing is saved there now. ``models``: how many of each.
    """

    node: str
    problem: str | None
    conversations: int
    size: int
    budget: int
    models: dict[str, int]


class CacheReport(NamedTuple):
    """The whole cache: what is in ``folder``, on this machine, and what is on ``nodes``; both are
    in ``models``, ``keys`` and ``openings``. ``size`` and ``budget`` in bytes; ``problem``: why
    nothing is saved here.
    """

    folder: str
    problem: str | None
    conversations: int
    size: int
    budget: int
    models: dict[str, Spared]
    keys: dict[str, Spared]
    openings: list[SavedOpening]
    nodes: list[SavedOnNode]

    def on_nodes(self, model: str) -> dict[str, int]:
        """Return how many conversations of ``model`` are on each node that has some."""
        return {one.node: one.models[model] for one in self.nodes if model in one.models}


def on_one_node(
    node: str, problem: str | None, held: Mapping[str, Held], budget: int
) -> SavedOnNode:
    """Return what is ``held`` there, by model, as one."""
    models = {model: one.conversations for model, one in held.items()}
    size = sum(one.size for one in held.values())
    return SavedOnNode(node, problem, sum(models.values()), size, budget, models)


def sum_held(several: Iterable[Mapping[str, Held]]) -> dict[str, Held]:
    """Return what is held of each name on ``several`` disks together."""
    total = defaultdict[str, Held](Held)
    for of_disk in several:
        for name, held in of_disk.items():
            total[name].conversations += held.conversations
            total[name].size += held.size
    return total


def spared(held: Held | None, counts: Counts | None) -> Spared | None:
    """Return both as one; ``None`` if there is neither."""
    if held is None and counts is None:
        return None
    held, counts = held or Held(), counts or Counts()
    disk, slot = counts.disk, counts.slot
    return Spared(
        held.conversations,
        held.size,
        disk.hits,
        disk.tokens,
        round(disk.seconds, 3),
        slot.hits,
        slot.tokens,
        round(slot.seconds, 3),
        counts.bytes_read,
        counts.bytes_written,
        counts.switched_off,
        counts.not_private,
    )


def all_spared(held: dict[str, Held], counts: dict[str, Counts]) -> dict[str, Spared]:
    """Return those of every name that has either, the largest first."""
    found = {name: spared(held.get(name), counts.get(name)) for name in {**held, **counts}}
    there = [(name, one) for name, one in found.items() if one is not None]
    return dict(sorted(there, key=lambda item: (-item[1].size, -item[1].hits, item[0])))


#: What keys don't have.
_OF_MODELS: Final = ("switched_off", "not_private")
#: Stands for the name of the key that has what all keys use.
_SHARED_BY: Final = "shared by all keys"
#: That of a gateway that saves none.
NO_CACHE: Final = CacheReport("", None, 0, 0, 0, {}, {}, [], [])


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
        "nodes": [_without(one._asdict(), "models") for one in report.nodes],
        "models": [
            {"model": name, **_shown(one), "nodes": report.on_nodes(name)}
            for name, one in report.models.items()
        ],
        "keys": [
            {
                "key": key,
                "name": _SHARED_BY if key == SHARED else name_of(key),
                **_shown(one, *_OF_MODELS),
            }
            for key, one in keys
        ],
        "openings": [one._asdict() for one in report.openings],
    }


def _shown(one: Spared, *without: str) -> dict[str, Any]:
    return _without(one._asdict(), *without)


def _without(fields: dict[str, Any], *without: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in without}
