"""Views of models for the scheduler's policy, given or random, and what must hold of decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from gateway.backends.decision import Act, Decision, ModelView, SchedulingLimits
from gateway.backends.placement import Demand
from gateway.backends.policy import decide

NOW = 1000.0
ONE = SchedulingLimits(max_loaded=1, patience=15)


def ready(name: str, **changes: Any) -> ModelView:
    return ModelView(name, resident=True, ready=True, **changes)


def starting(name: str, **changes: Any) -> ModelView:
    return ModelView(name, resident=True, starting=True, **changes)


def draining(name: str, **changes: Any) -> ModelView:
    return ModelView(name, resident=True, draining=True, **changes)


def stopping(name: str, **changes: Any) -> ModelView:
    return ModelView(name, resident=True, stopping=True, **changes)


def wanted(name: str, since: float = NOW, **changes: Any) -> ModelView:
    """A model that isn't there, with one waiter."""
    return ModelView(name, waiting=1, oldest_wait=since, **changes)


def need(size: int) -> Demand:
    return Demand(size, size)


def acts(
    models: Sequence[ModelView], limits: SchedulingLimits = ONE, now: float = NOW
) -> list[str]:
    return [f"{a.act.name} {a.model}" for a in decide(models, limits, now).actions]


def wake(models: Sequence[ModelView], limits: SchedulingLimits = ONE) -> float | None:
    return decide(models, limits, NOW).wake_at


def busy(name: str, **changes: Any) -> ModelView:
    return ready(name, in_flight=1, **changes)


STATES: dict[str, dict[str, Any]] = {
    "absent": {},
    "starting": {"resident": True, "starting": True},
    "ready": {"resident": True, "ready": True},
    "draining": {"resident": True, "draining": True},
    "stopping": {"resident": True, "stopping": True},
}
times = st.integers(980, 1020).map(float)


@st.composite
def views(draw: st.DrawFn) -> list[ModelView]:
    models = []
    for name in draw(st.sets(st.sampled_from("abcdef"))):
        state = draw(st.sampled_from(sorted(STATES)))
        slots = draw(st.integers(1, 3))
        works = state in ("ready", "draining", "stopping")
        waiting, loaders = draw(st.integers(0, 2)), draw(st.integers(0, 1))
        models.append(
            ModelView(
                name,
                **STATES[state],
                blocked_until=draw(times) if state == "absent" else 0.0,
                in_flight=draw(st.integers(0, slots)) if works else 0,
                slots=slots,
                waiting=waiting,
                wanted=loaders,
                oldest_wait=draw(times) if waiting or loaders else None,
                demand=need(draw(st.integers(0, 6))),
                last_used=draw(times),
                recent_until=draw(times),
                vied=draw(times),
                ready_since=draw(times),
                load_time=draw(st.none() | st.floats(0, 30)),
                pinned=draw(st.booleans()),
                unload=draw(st.booleans()) if state != "absent" else False,
                expires=draw(st.none() | times),
            )
        )
    return models


limits_of_any_kind = st.builds(
    SchedulingLimits,
    max_loaded=st.none() | st.integers(1, 4),
    budget=st.none() | st.integers(1, 12),
    patience=st.sampled_from([0.0, 5.0]),
)


def fits(model: ModelView, beside: Sequence[ModelView], limits: SchedulingLimits) -> bool:
    if not beside:
        return True
    few = limits.max_loaded is None or len(beside) < limits.max_loaded
    small = limits.budget is None or sum(m.demand.size for m in [*beside, model]) <= limits.budget
    return few and small


def check(
    models: Sequence[ModelView], limits: SchedulingLimits, decision: Decision, now: float
) -> None:
    """What must hold of every decision, told without the policy's own words."""
    by_name = {m.name: m for m in models}
    there = [m for m in models if m.resident]
    assert len(set(decision.actions)) == len(decision.actions)
    started: list[ModelView] = []
    gone_from_line = {a.model for a in decision.actions if a.act in (Act.START, Act.REFUSE)}
    for action in decision.actions:
        model = by_name[action.model]
        match action.act:
            case Act.GRANT:
                assert model.ready
                assert model.waiting
                assert model.in_flight < model.slots
            case Act.LOADED:
                assert model.ready
                assert model.wanted
            case Act.START:
                assert not model.resident
                assert model.oldest_wait is not None
                assert model.blocked_until <= now
                assert fits(model, [*there, *started], limits)
                # Nobody older is left without a place by it.
                older = [
                    m
                    for m in models
                    if m.oldest_wait is not None
                    and m.oldest_wait < model.oldest_wait
                    and not m.resident
                    and m.blocked_until <= now
                    and m.name not in gone_from_line
                ]
                assert fits(model, [*there, *started, *older], limits)
                started.append(model)
            case Act.STOP:
                assert model.resident
                assert not model.stopping
                assert model.in_flight == 0
                assert model.unload or not model.pinned
            case Act.DRAIN:
                assert model.ready
                assert not model.pinned
                # For somebody who has let it have a turn.
                then = now - min(limits.patience, limits.shortest_turn) + 1e-6
                newcomers = [m for m in models if m.oldest_wait is not None and not m.resident]
                assert model.ready_since <= then
                assert any((m.oldest_wait or 0) <= then for m in newcomers)
            case Act.RESUME:
                assert model.draining
                assert not model.unload
            case Act.REFUSE:
                pinned = [m for m in there if m.pinned and not m.stopping and not m.unload]
                assert not fits(model, pinned, limits)
