"""The values that go into a decision about several models, and those that come out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Literal

from gateway.backends.placement import Demand, Placement

NOTHING: Final = Demand()


class Act(Enum):
    """What can be done with a model."""

    GRANT = auto()  # give the first waiter its lease
    LOADED = auto()  # tell those who only wanted it loaded
    START = auto()
    COPY = auto()  # start one more copy
    STOP = auto()
    STOP_COPY = auto()  # one of several: it gets no more requests, and ends when it has none
    DRAIN = auto()
    RESUME = auto()  # take work again after all
    REFUSE = auto()  # send all waiters away: there will be no room
    GIVE_UP = auto()  # likewise: other programs hold the memory
    LOOK = auto()  # see how much memory is free, and decide then


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do with one model."""

    act: Act
    model: str
    on: Placement = ()  # of START and COPY: the devices it goes to
    copy: int = 0  # of STOP_COPY: its number
    #: Of STOP and STOP_COPY: the model that needs its place, if that is why.
    room_for: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class CopyView:
    """One of several copies of a model. ``leaving``: it ends when it has no more requests."""

    number: int
    on: Placement
    in_flight: int = 0
    last_used: float = 0.0
    ready: bool = True
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class ModelView:
    """All that a decision about one model depends on. Times in seconds, memory in bytes."""

    name: str
    resident: bool = False  # a process exists
    starting: bool = False
    ready: bool = False  # may be given work
    draining: bool = False
    stopping: bool = False
    blocked_until: float = 0.0  # backoff: may not be started before
    in_flight: int = 0
    slots: int = 1
    waiting: int = 0  # requests that need a slot
    wanted: int = 0  # callers that only want it loaded
    oldest_wait: float | None = None  # when the first of both came
    demand: Demand = NOTHING
    copy: Demand | None = None  # of one more copy that there should be
    on: Placement = ()  # where it is, as long as it is resident
    copies: tuple[CopyView, ...] = ()  # if there are several: each of them
    spare_of: str | None = None  # it is one of these, which may go alone: the model's name
    number: int = 0  # its number then
    short_since: float | None = None  # it has been waiting for others' memory since
    last_used: float = 0.0
    recent_until: float = 0.0  # until then one without work counts as in use, at most
    vied: float = -math.inf  # when clients of it and of another one last wanted both at a time
    ready_since: float = 0.0
    load_time: float | None = None  # seconds that its last load took
    alone: bool = False  # must have all the memory that can be had
    pinned: bool = False
    unload: bool = False  # somebody asked for it to go
    expires: float | None = None  # idle from then on, it goes by itself
    remote: bool = False  # on servers that are not ours to start

    @property
    def stays(self) -> bool:
        """Whether it is there and nobody unloads it."""
        return self.pinned and self.resident and not self.stopping and not self.unload


@dataclass(frozen=True, slots=True)
class SchedulingLimits:
    """How much may be resident at once, and how long a newcomer is put off. Seconds.

    A model's turn is as long as ``shares`` swaps take, within ``shortest_turn`` and
    ``longest_turn``: the longer a swap takes, the longer the place is kept after it.

    ``budget`` is of this machine. ``placement``, where there are others: "pack" prefers this one,
    and then the one that is left with the least; "spread" the one with the fewest models.
    """

    max_loaded: int | None = None
    budget: int | None = None
    patience: float = 15.0  # a newcomer lets a busy model go on for so long, at most
    shares: float = 4.0
    shortest_turn: float = 2.0
    longest_turn: float = 60.0
    first_turn: float = 5.0  # nobody's turn is cut below it, however long others have waited
    longest_wait: float = 60.0  # a newcomer puts up with no longer turns, if several come first
    linger: float = 5.0  # a model without work counts as in use for so long, at most
    grace: float = 0.3  # likewise where its client may be the newcomer, at most
    late: float = 0.05  # a client that hangs up is noticed within
    short_for: float = 30.0  # memory that other programs hold is waited for, at most
    look_every: float = 2.0  # while it is waited for
    placement: Literal["pack", "spread"] = "pack"

    def turn(self, model: ModelView, newcomer: ModelView) -> float:
        """Return how long ``model`` may keep its place while ``newcomer`` waits for it.

        A swap there and back takes both loads. Loads that were never measured don't count.
        """
        loads = [m.load_time for m in (model, newcomer) if m.load_time is not None]
        if not loads:
            return self.patience
        return min(max(self.shares * sum(loads), self.shortest_turn), self.longest_turn)


@dataclass(frozen=True, slots=True)
class Decision:
    """Actions to carry out now, and when to ask again even if nothing happens.

    ``short``: the models that wait for memory which other programs hold.
    """

    actions: tuple[Action, ...]
    wake_at: float | None
    short: frozenset[str] = frozenset()
