"""Which copies of a model may go without the others, during a decision. Pure.

A model stays as long as one of its copies does. One that goes alone is looked at as a model of its
own: it is in nobody's way but where it is, and counts as used when it was used itself.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from gateway.backends.decision import CopyView, ModelView
from gateway.backends.placement import by_machine


def key_of(model: str, copy: CopyView) -> str:
    """Return what stands for a copy among the names of models."""
    return f"{model}\0copy {copy.number}"


def keys_of(model: ModelView) -> list[str]:
    """Return what stands for each of its copies, if there are several."""
    return [key_of(model.name, copy) for copy in model.copies]


def spare(model: ModelView, copy: CopyView) -> ModelView:
    """Return ``copy`` as a model that may go."""
    return replace(
        model,
        name=key_of(model.name, copy),
        on=copy.on,
        in_flight=copy.in_flight,
        waiting=0,
        wanted=0,
        last_used=copy.last_used,
        recent_until=model.recent_until - model.last_used + copy.last_used,
        copies=(),
        spare_of=model.name,
        number=copy.number,
    )


def that_may_go(model: ModelView, machine: str, leaving: Set[str]) -> list[ModelView]:
    """Return what of ``model`` may go from ``machine``: copies as long as another stays, and all of
    it where that is the only machine.

    ``leaving``: what goes already.
    """
    stay = [c for c in model.copies if not c.leaving and key_of(model.name, c) not in leaving]
    here = [copy for copy in stay if machine in by_machine(copy.on)]
    if not here:
        return []
    ready = [copy for copy in stay if copy.ready]
    if model.draining or not ready:
        return [model]
    if any(copy not in here for copy in ready):
        return [spare(model, copy) for copy in here]
    last = max(ready, key=_use)
    return [*(spare(model, copy) for copy in here if copy is not last), model]


def idle_copies(model: ModelView) -> list[ModelView]:
    """Return the copies that may go because nobody needs them: all but the one used last."""
    stay = [copy for copy in model.copies if copy.ready and not copy.leaving]
    stay.sort(key=_use)
    return [spare(model, copy) for copy in stay[:-1] if not copy.in_flight]


def _use(copy: CopyView) -> tuple[bool, float]:
    """Return what orders copies by when they were used last: at work is later than any time."""
    return copy.in_flight > 0, copy.last_used
