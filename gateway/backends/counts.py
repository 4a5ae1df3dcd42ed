"""What has become of models since the gateway started, counted for metrics. Pure."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field


class Unloaded(enum.StrEnum):
    """Why a model was unloaded."""

    ASKED = "asked"  # somebody asked for it, or its entry has changed
    IDLE = "idle"  # nobody used it for its ``ttl``
    EVICTED = "evicted"  # another one needed its place


class Ended(enum.StrEnum):
    """Why a model has to be started again though nobody unloaded it."""

    CRASHED = "crashed"
    KILLED = "killed"  # by the system when memory ran out, as a rule
    HUNG = "hung"
    RUNAWAY = "runaway"  # a request would have kept it busy for ever
    OUT_OF_MEMORY = "out_of_memory"  # as it said itself
    NOT_STARTED = "not_started"  # its process ended, or took too long, before it was ready
    NODE_LOST = "node_lost"  # its machine, in a cluster
    UNREACHABLE = "unreachable"  # every server of a remote model


@dataclass(frozen=True, slots=True)
class ModelCounts:
    """The counts, by the names of models."""

    unloads: Counter[tuple[str, Unloaded]] = field(default_factory=Counter)
    ends: Counter[tuple[str, Ended]] = field(default_factory=Counter)
    #: Loads for which others had to go.
    swaps: Counter[str] = field(default_factory=Counter)
    #: The models for which others go just now.
    _newcomers: set[str] = field(default_factory=set)

    def unloaded(self, model: str, *, asked: bool, room_for: str | None) -> None:
        """Count that ``model`` is unloaded; ``room_for``: because that one needs its place."""
        if room_for is not None:
            self._newcomers.add(room_for)
            self.unloads[model, Unloaded.EVICTED] += 1
        else:
            self.unloads[model, Unloaded.ASKED if asked else Unloaded.IDLE] += 1

    def started(self, model: str) -> None:
        """Count that ``model`` starts, if others had to go for it."""
        if model in self._newcomers:
            self._newcomers.discard(model)
            self.swaps[model] += 1
