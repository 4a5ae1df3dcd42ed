"""Leases: the right to send a request to a backend, and the only count of requests in flight."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from gateway.backends.scheduled_model import ScheduledModel

if TYPE_CHECKING:
    from gateway.backends.replica import Replica
    from gateway.backends.several import Saved, Several


class Lease:
    """A right to send one request to one backend. Release it exactly when that request is over.

    Releasing twice is harmless; a lease is a context manager.
    """

    __slots__ = ("_leases", "_lent", "_model", "_replica", "_starts", "backend")

    def __init__(self, leases: Leases, model: ScheduledModel) -> None:
        self._leases = leases
        self._model: ScheduledModel | None = model
        self._lent = False
        self._replica: Replica | None = None
        self.backend = model.backend
        self._starts = model.backend.starts

    @property
    def on_trial(self) -> bool:
        """Whether its model takes only one request at a time, because a request may have
        killed it.
        """
        model = self._model
        return model is not None and model.on_trial

    def proved(self) -> None:
        """Note that an answer comes: after a death by a request, the model gets all its slots
        back.
        """
        model = self._model
        if model is not None and self._starts == self.backend.starts and self.backend.serving:
            model.on_trial = False
            model.count_slots()
            self._leases.decide()

    def choose(
        self, several: Several, prefix: tuple[bytes, ...], saved: Saved | None = None
    ) -> Replica:
        """Return which of the model's llama-servers gets the request: see :meth:`Several.choose`.
        It counts there until the lease is released. Raises :class:`ConnectFailed`.
        """
        self._replica = chosen = several.choose(prefix, saved)
        return chosen

    def lend(self) -> None:
        """Let another request have the slot while this one doesn't use it; harmless if it has."""
        if self._model is not None and not self._lent:
            self._lent = True
            self._model.lent += 1
            self._leases.decide()

    def reclaim(self) -> None:
        """Use the slot, as soon as one is free; harmless if it was not lent."""
        if self._model is not None and self._lent:
            self._lent = False
            self._model.lent -= 1

    def release(self) -> None:
        """Give the slot back."""
        self.reclaim()
        model, self._model = self._model, None
        if (replica := self._replica) is not None:
            replica.give_back()
            self._replica = None
            if replica.parting and model is not None:
                model.count_slots()
        if model is not None:
            self._leases.take_back(model)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Leases:
    """The leases of one scheduler, counted for each model and in all.

    ``decide`` is called where that may change what is to be done, ``released`` with a model and
    the time after each that has been given back, ``notify`` when the first has been granted and
    when the last is back.
    """

    def __init__(
        self,
        decide: Callable[[], None],
        released: Callable[[ScheduledModel, float], None],
        notify: Callable[[], None],
    ) -> None:
        self.decide = decide
        self._released = released
        self._notify = notify
        self._idle: asyncio.Event | None = None  # where somebody waits for it
        self.in_flight = 0

    def grant(self, model: ScheduledModel) -> Lease:
        """Give a slot of ``model``; that one is free is for the caller to see."""
        model.in_flight += 1
        self.in_flight += 1
        if self.in_flight == 1:
            self._notify()
        return Lease(self, model)

    def take_back(self, model: ScheduledModel) -> None:
        """Take a lease of ``model`` back."""
        model.in_flight -= 1
        model.last_used = now = time.monotonic()
        self.in_flight -= 1
        if self.in_flight == 0:
            if self._idle is not None:
                self._idle.set()
            self._notify()
        self._released(model, now)

    async def idle(self) -> None:
        """Return when nothing is in flight."""
        if self.in_flight:
            self._idle = self._idle or asyncio.Event()
            self._idle.clear()
            await self._idle.wait()
