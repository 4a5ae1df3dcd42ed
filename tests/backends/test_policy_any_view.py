"""What must hold of every decision, whatever there is to decide about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings

from gateway.backends.decision import Act, ModelView, SchedulingLimits
from gateway.backends.policy import decide
from tests.model_views import (
    NOW,
    check,
    limits_of_any_kind,
    views,
)


@given(views(), limits_of_any_kind)
@settings(max_examples=150, deadline=None)
def test_every_decision_keeps_the_rules(models: Any, limits: Any) -> None:
    check(models, limits, decide(models, limits, NOW), NOW)


def carried_out(model: ModelView, act: Act) -> ModelView:
    absent: dict[str, Any] = {
        "resident": False,
        "starting": False,
        "ready": False,
        "draining": False,
    }
    match act:
        case Act.GRANT:
            left = model.waiting - 1
            oldest = model.oldest_wait if left or model.wanted else None
            in_flight = model.in_flight + 1
            return replace(model, waiting=left, in_flight=in_flight, oldest_wait=oldest)
        case Act.LOADED:
            oldest = model.oldest_wait if model.waiting else None
            return replace(model, wanted=0, oldest_wait=oldest)
        case Act.START:
            return replace(model, resident=True, starting=True)
        case Act.STOP:
            return replace(model, **{**absent, "resident": True}, stopping=True)
        case Act.DRAIN:
            return replace(model, ready=False, draining=True)
        case Act.RESUME:
            return replace(model, ready=True, draining=False)
        case Act.REFUSE:
            return replace(model, waiting=0, wanted=0, oldest_wait=None)
    raise AssertionError(act)


def settle(models: list[ModelView], limits: SchedulingLimits, now: float) -> list[ModelView]:
    """Decide and act until there is nothing more to do, checking each step."""
    for _ in range(100):
        decision = decide(models, limits, now)
        check(models, limits, decision, now)
        if not decision.actions:
            assert decision.wake_at is None or decision.wake_at > now
            return models
        for action in decision.actions:
            models = [carried_out(m, action.act) if m.name == action.model else m for m in models]
    raise AssertionError("it never comes to rest")


@given(views(), limits_of_any_kind)
@settings(max_examples=150, deadline=None)
def test_deciding_comes_to_rest(models: Any, limits: Any) -> None:
    settle(models, limits, NOW)
