"""Models without processes, a clock, and the scheduler's policy in charge."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from gateway.backends.decision import Act, ModelView, SchedulingLimits
from gateway.backends.policy import decide
from tests.model_views import (
    check,
    need,
)


@dataclass
class Model:
    """What the scheduler knows of a model, and its process."""

    name: str
    need: int
    slots: int
    state: str = "absent"
    pinned: bool = False
    unload: bool = False
    ttl: float | None = None
    in_flight: int = 0
    queue: deque[float] = field(default_factory=deque)  # since when each waits
    blocked_until: float = 0.0
    last_used: float = 0.0
    ready_since: float = 0.0
    linger: float = 0.0
    load_time: float | None = None

    def view(self) -> ModelView:
        ready = self.state == "ready"
        last_used = max(self.last_used, self.ready_since)
        return ModelView(
            self.name,
            resident=self.state != "absent",
            starting=self.state == "starting",
            ready=ready and not self.unload,
            draining=self.state == "draining" or (ready and self.unload),
            stopping=self.state == "stopping",
            in_flight=self.in_flight,
            slots=self.slots,
            waiting=len(self.queue),
            oldest_wait=self.queue[0] if self.queue else None,
            demand=need(self.need),
            pinned=self.pinned,
            unload=self.unload,
            blocked_until=self.blocked_until if self.state == "absent" else 0.0,
            last_used=last_used,
            recent_until=last_used + self.linger,
            ready_since=self.ready_since,
            load_time=self.load_time,
            expires=None if self.ttl is None else last_used + self.ttl,
        )


class World:
    """Models, a clock, and the policy in charge."""

    def __init__(self, models: Sequence[Model], limits: SchedulingLimits) -> None:
        self.models = {model.name: model for model in models}
        self.limits = limits
        self.now = 0.0
        self.starts = 0
        self.waits: list[float] = []
        self.refused = 0

    def pump(self) -> float | None:
        """Decide and act until there is nothing more to do; returns when to look again."""
        for _ in range(1000):
            views = [model.view() for model in self.models.values()]
            decision = decide(views, self.limits, self.now)
            check(views, self.limits, decision, self.now)
            if not decision.actions:
                return decision.wake_at
            for action in decision.actions:
                self.act(self.models[action.model], action.act)
        raise AssertionError("it never comes to rest")

    def act(self, model: Model, act: Act) -> None:
        match act:
            case Act.GRANT:
                self.waits.append(self.now - model.queue.popleft())
                model.in_flight += 1
            case Act.START:
                self.starts += 1
                model.state = "starting"
            case Act.STOP:
                model.state = "stopping"
            case Act.DRAIN:
                model.state = "draining"
            case Act.RESUME:
                model.state = "ready"
            case Act.REFUSE:
                self.refused += len(model.queue)
                model.queue.clear()

    def ask(self, model: Model) -> None:
        model.queue.append(self.now)

    def finish(self, model: Model) -> None:
        if model.in_flight:
            model.in_flight -= 1
            model.last_used = self.now

    def loaded(self, model: Model) -> None:
        if model.state == "starting":
            model.state = "ready"
            model.ready_since = self.now

    def stopped(self, model: Model) -> None:
        if model.state == "stopping":
            model.state, model.unload = "absent", False

    def dies(self, model: Model) -> None:
        """Of itself: those it answers lose their answer, those who wait for a load fail."""
        if model.state in ("starting", "ready", "draining"):
            if model.state == "starting":
                model.queue.clear()
            model.state, model.unload, model.in_flight = "absent", False, 0
            model.blocked_until = self.now + 7

    def waiting(self) -> int:
        return sum(len(model.queue) for model in self.models.values())

    def quiet(self) -> None:
        """Nobody asks any more: what is under way ends, and everyone is served or refused."""
        wake = self.pump()
        for _ in range(200):
            before = self.starts, self.waiting(), [m.state for m in self.models.values()]
            for model in self.models.values():
                self.loaded(model)
                self.stopped(model)
                while model.in_flight:
                    self.finish(model)
            wake = self.pump()
            after = self.starts, self.waiting(), [m.state for m in self.models.values()]
            if before == after:
                if wake is None:
                    break
                self.now = max(self.now, wake)
                wake = self.pump()
        assert self.waiting() == 0, "somebody waits for ever"
        assert not [m for m in self.models.values() if m.in_flight]
        assert not [m for m in self.models.values() if m.state in ("draining", "stopping")]


def run(world: World, seconds: int, clients: dict[str, int], load: int) -> None:
    """Each of ``clients`` asks again as soon as it has its answer, which takes a second."""
    loading: dict[str, int] = {}
    for model in world.models.values():
        for _ in range(clients[model.name]):
            world.ask(model)
    for _ in range(seconds):
        world.pump()
        world.now += 1
        for model in world.models.values():
            if model.state == "starting":
                loading[model.name] = loading.get(model.name, 0) + 1
                if loading[model.name] >= load:
                    loading[model.name] = 0
                    world.loaded(model)
            world.stopped(model)
            for _ in range(model.in_flight):
                world.finish(model)
                world.ask(model)


def simulate(
    world: World,
    seconds: float,
    clients: Sequence[tuple[str, float, float]],
    loads: dict[str, float],
) -> None:
    """Clients that ask for a model, are answered for a while, think, and ask again.

    ``clients``: (model, seconds an answer takes, seconds until the next question).
    """
    events: list[tuple[float, int, Callable[[], None]]] = []
    number = itertools.count()
    states = dict.fromkeys(world.models, "absent")
    waiting: dict[str, deque[int]] = {name: deque() for name in world.models}
    granted = dict.fromkeys(world.models, 0)

    def at(delay: float, what: Callable[[], None]) -> None:
        heapq.heappush(events, (world.now + delay, next(number), what))

    def ask(client: int) -> None:
        name = clients[client][0]
        waiting[name].append(client)
        world.ask(world.models[name])

    def finish(client: int) -> None:
        name, _, thinks = clients[client]
        granted[name] -= 1
        world.finish(world.models[name])
        at(thinks, lambda: ask(client))

    def loaded(model: Model) -> None:
        model.load_time = loads[model.name]
        world.loaded(model)

    for client in range(len(clients)):
        at(client / 100, partial(ask, client))
    while world.now < seconds:
        wake = world.pump()
        for name, model in world.models.items():
            while granted[name] < model.in_flight:
                client = waiting[name].popleft()
                granted[name] += 1
                at(clients[client][1], partial(finish, client))
            if model.state != states[name]:
                states[name] = model.state
                if model.state == "starting":
                    at(loads[name], partial(loaded, model))
                elif model.state == "stopping":
                    at(0.2, partial(world.stopped, model))
        soonest = events[0][0] if events else seconds
        if wake is not None and wake < soonest:
            world.now = wake
            continue
        world.now, _, happens = heapq.heappop(events)
        happens()
