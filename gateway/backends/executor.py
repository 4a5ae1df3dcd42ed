"""Carries decisions out, and hears what comes of them.

The only one that starts, drains and stops backends. Nothing here awaits: a decision is carried out
before anything can change on which it was made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.backends.backend import OUT_OF_MEMORY, Backend, State
from gateway.backends.counts import ModelCounts
from gateway.backends.decision import Act, Action
from gateway.backends.lease import Leases
from gateway.backends.model_memory import ModelMemory
from gateway.backends.placement import by_machine
from gateway.backends.roster import Roster
from gateway.backends.run import NODE_LOST, PLACED_ANEW
from gateway.backends.scheduled_model import ScheduledModel
from gateway.backends.wait_queue import WaitQueue
from gateway.errors import GatewayError, Unavailable
from gateway.models.local_model import LocalModel

_log = logging.getLogger(__name__)

#: How often a model is tried with less memory, when memory ran out though it was given no more than
#: there was.
_SHRINKS = 2


class Executor:
    """An executor of one scheduler's decisions. ``died`` is called with a model's name and why its
    process, which was ready, has died.
    """

    def __init__(
        self,
        roster: Roster,
        queue: WaitQueue,
        leases: Leases,
        memory: ModelMemory,
        died: Callable[[str, GatewayError], None],
        counts: ModelCounts,
        load_again: Callable[[str], object],
    ) -> None:
        """``load_again`` is called with a model's name whose node is lost."""
        self._roster = roster
        self._queue = queue
        self._leases = leases
        self._memory = memory
        self._died = died
        self._counts = counts
        self._load_again = load_again

    def carry_out(self, action: Action) -> None:
        """Do one thing to one model."""
        model = self._roster.by_key(action.model)
        match action.act:
            case Act.GRANT:
                self._queue.serve(model, self._leases.grant(model))
            case Act.LOADED:
                self._queue.tell_loaded(model)
            case Act.START:
                self._memory.grant(model, action.on)
                self._counts.started(model.spec.name)
                model.backend.start(lambda: self._memory.choose(model))
            case Act.COPY:
                self._memory.copy(model, action.on)
            case Act.STOP:
                self._counts.unloaded(model.spec.name, asked=model.unload, room_for=action.room_for)
                model.backend.stop()
            case Act.STOP_COPY:
                model.backend.give_up_copy(action.copy, idle=action.room_for is None)
            case Act.DRAIN:
                model.backend.drain()
            case Act.RESUME:
                model.backend.undrain()
            case Act.REFUSE:
                self._queue.refuse(model, _no_room(model, self._memory.alone(model.spec)))
            case Act.GIVE_UP:
                self._give_up(model)
            case Act.LOOK:
                self._memory.begin_look()

    def _give_up(self, model: ScheduledModel) -> None:
        assert isinstance(model.spec, LocalModel)  # no other waits for memory
        lacking = self._memory.lacking(model.spec)
        _log.warning("%s", lacking.message)
        self._queue.refuse(model, lacking)

    def hear(self, backend: Backend) -> None:
        """Handle the news of a backend that has changed its state, or has something else to tell.

        It may have gone through several states since the last call. The news is handled in the
        order of importance; deciding what is next comes last.
        """
        model = self._roster.of(backend)
        if model is None:
            return
        if (death := backend.last_death) is not None and death is not model.death:
            model.death = death
            if backend.by_request:
                model.on_trial = True  # until one more request has gone well
            self._died(model.spec.name, death)
            if death.code == NODE_LOST and not model.unload:
                self._load_again(model.spec.name)
        if (failure := backend.start_error) is not None and failure is not model.start_error:
            model.start_error = failure
            self._load_failed(model, failure)
        elif backend.state is State.FAILED:
            self._queue.refuse(model, backend.failure())
        elif backend.state is State.READY and model.loaded != backend.starts:
            model.loaded = backend.starts
            model.alone, model.shrunk = False, 0
            self._memory.forget_ran_out(model)
            self._memory.weigh(model)
        model.count_slots()
        self._memory.hear(model)
        if backend.going and backend.serving:
            model.send_away()
        if model.unload:
            backend.drain()  # it was starting when it was sent away
        self._roster.settle(model)

    def _load_failed(self, model: ScheduledModel, failure: GatewayError) -> None:
        if failure.code in PLACED_ANEW and model.oldest_wait is not None:
            _log.warning("%s: placing it anew", failure.message)
            model.backend.reset()
            return
        if failure.code == OUT_OF_MEMORY and self._memory.try_elsewhere(model):
            _log.warning("%s: trying another machine", failure.message)
            model.backend.reset()
            return
        if failure.code == OUT_OF_MEMORY and not model.alone and self._others_loaded(model):
            _log.warning("%s: trying again with the other models unloaded", failure.message)
            model.alone = True
            model.backend.reset()
            return
        may_shrink = model.backend.tuning is not None and model.shrunk < _SHRINKS
        if failure.code == OUT_OF_MEMORY and may_shrink and model.oldest_wait is not None:
            _log.warning("%s: trying again with less", failure.message)
            model.shrunk += 1
            model.backend.reset()
            return
        model.alone, model.shrunk = False, 0
        self._queue.refuse(model, failure)

    def _others_loaded(self, model: ScheduledModel) -> bool:
        """Return whether others share a machine with ``model`` that could go."""
        there = by_machine(model.on).keys()
        others = (m for m in self._roster.all() if m is not model and m.backend.spec.takes_memory)
        return any(
            other.resident and not other.spec.pinned and not there.isdisjoint(by_machine(other.on))
            for other in others
        )


def _no_room(model: ScheduledModel, alone: str | None) -> Unavailable:
    return Unavailable(
        f"there is no room for {model.spec.name!r} beside the models that are pinned and loaded",
        detail=alone,
        code="no_room",
        headers={"Retry-After": "60"},
    )
