"""The capacity of this machine for models, measured again and again. For one event loop.

A look takes as long as ``llama-server --list-devices`` does: next to nothing where that has no
GPU support, a second where a driver has to wake up. What other programs leave of a device is what
is free of it, and what our own models hold there; it does not change with what those do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import Any

from gateway.backends.devices import Device, NotTold
from gateway.backends.gpus_seen import GpusSeen
from gateway.backends.machine import Machine
from gateway.backends.placement import Card, Demand, Look, Memory, Resident
from gateway.backends.ram import RAM
from gateway.backends.usage import memory_kept

_log = logging.getLogger(__name__)

_MIB = 2**20
_GIB = 2**30
#: Memory that is left free for others: a driver, a file cache, or somebody's browser may need it
#: next.
_MARGIN = 256 * _MIB
#: Seconds that a decision waits for a measurement, before it goes on without.
PATIENCE = 20.0
_Seen = tuple[Machine, Memory, str | None]
#: Seconds for which a measurement is valid, or ten times as long as it took.
_FRESH = 1.0


class Capacity:
    """The devices of the machine and their memory, as last seen.

    ``read`` looks at the machine, and blocks. ``budget`` is ``scheduler.memory_budget`` in bytes,
    ``None`` for what there is. ``seen`` remembers which GPUs there were.
    """

    def __init__(
        self, read: Callable[[], Machine], budget: int | None, seen: GpusSeen | None = None
    ) -> None:
        self.read = read
        self._budget = budget
        self._seen = seen
        self._until = 0.0  # monotonic; until then the last look is good
        self._looking: _LookInThread | None = None
        self._failed: str | None = None
        self.machine = Machine((), "not looked at")
        self.memory = Memory()
        #: What is wrong with the machine: a GPU that has gone.
        self.problem: str | None = None

    @property
    def budget(self) -> int:
        """The bytes that all models together may take."""
        if self._budget is not None:
            return self._budget
        return self.machine.budget if self.machine.devices else sys.maxsize

    def now(self, *, looking: bool) -> Memory:
        """Return the memory for a decision that is made now."""
        if looking:
            return replace(self.memory, look=Look.UNDER_WAY)
        if time.monotonic() > self._until:
            return replace(self.memory, look=Look.STALE)
        return self.memory

    async def look(self, residents: Sequence[Resident] = ()) -> None:
        """Measure free memory. If that fails, or takes too long, the last measurement stays.

        Whatever is odd about this machine must not keep every model from loading.
        """
        began = time.monotonic()
        if self._looking is None:
            self._looking = _LookInThread(partial(self._measure, residents))
        looking = self._looking
        started = looking.started
        left = max(started + PATIENCE - began, 0.0)
        await asyncio.wait([looking.outcome], timeout=left)
        if not looking.outcome.done():
            self._fail(f"nothing has come of a look for {began + left - started:.0f} s", began)
            self._until = time.monotonic() + PATIENCE
            return
        self._looking = None
        try:
            machine, memory, problem = looking.outcome.result()
        except NotTold as error:
            self._fail(str(error), started)
        except Exception as error:
            _log.debug("looking at the memory", exc_info=error)
            self._fail(repr(error), started)
        else:
            self._failed = None
            before = self.machine.source, self.budget
            self.machine, self.memory = machine, replace(memory, seen=started)
            if before != (machine.source, self.budget):
                _log.info("memory for models: %.1f GiB (%s)", self.budget / _GIB, machine.source)
            if problem != self.problem:
                if problem is not None:
                    _log.warning("%s", problem)
                else:
                    _log.warning("every GPU is there again")
                self.problem = problem
        took = time.monotonic() - started
        self._until = time.monotonic() + max(_FRESH, 10 * took)

    def _fail(self, why: str, seen: float) -> None:
        if why != self._failed:
            _log.warning("the memory of this machine cannot be told: %s", why)
        self._failed = why
        self.memory = replace(self.memory, seen=seen)

    def _measure(self, residents: Sequence[Resident]) -> tuple[Machine, Memory, str | None]:
        machine = self.read()
        problem = self._seen.compare(machine) if self._seen is not None else None
        held, coming = _held(residents, machine)
        budget = self._budget if len(machine.devices) == 1 else None

        def card(device: Device, size: int | None) -> Card:
            return _card(device, size, held.get(device.name, 0), coming.get(device.name, 0))

        cards = tuple(card(device, budget) for device in machine.devices)
        ram = None if machine.ram is None else card(machine.ram, None)
        return machine, Memory(cards, ram), problem

    def report(self) -> dict[str, Any]:
        """Return all of it, for administrators. Bytes; ``left`` is what other programs leave
        models.
        """
        cards = {card.name: card for card in self.memory.cards}
        if self.memory.ram is not None:
            cards[RAM] = self.memory.ram
        ram = () if self.machine.ram is None else (self.machine.ram,)
        return {
            "source": self.machine.source,
            "gpu": self.machine.gpu,
            "problem": self.problem,
            "devices": [
                {
                    "name": device.name,
                    "description": device.description,
                    "total": device.total,
                    "free": device.free,
                    "for_models": cards[device.name].size,
                    "left": cards[device.name].left,
                }
                for device in (*self.machine.devices, *ram)
            ],
        }

    def lacking(self, name: str, demand: Demand, source: str) -> str:
        """Return why there is not enough memory for the model ``name``, with the numbers."""
        cards = [c for c in self.memory.cards if not demand.devices or c.name in demand.devices]
        if demand.ram and self.memory.ram is not None:
            cards.append(self.memory.ram)
        totals = {d.name: d.total for d in self.machine.devices}
        each = "; ".join(
            f"{card.name}: {_gib(card.left)} of {_gib(totals.get(card.name, card.size))}"
            for card in cards
        )
        needs = _gib(demand.size) + (f" and {_gib(demand.ram)} of RAM" if demand.ram else "")
        return (
            f"{name!r} needs {needs} ({source}), and other programs on this machine leave less "
            f"for models, even with all that may go unloaded: {each}"
        )


class _LookInThread:
    """A look at the machine in a thread of its own, so that one that hangs delays no shutdown."""

    def __init__(self, look: Callable[[], _Seen]) -> None:
        self.started = time.monotonic()
        self.outcome: asyncio.Future[_Seen] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        Thread(target=self._run, args=(look,), name="look at the memory", daemon=True).start()

    def _run(self, look: Callable[[], _Seen]) -> None:
        try:
            seen = look()
        except Exception as error:
            self._tell(partial(self.outcome.set_exception, error))
        else:
            self._tell(partial(self.outcome.set_result, seen))

    def _tell(self, how: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it
            self._loop.call_soon_threadsafe(how)


def _card(device: Device, size: int | None, held: int, coming: int) -> Card:
    """Return a device as a card. ``size``: the configured size, if any, in place of its budget."""
    size = device.budget if size is None else size
    if device.free is None:
        return Card(device.name, size, size)
    left = device.free + held - _MARGIN
    hope = max(min(size, left + coming), 0) if coming else None
    return Card(device.name, size, max(min(size, left), 0), hope)


def _held(residents: Sequence[Resident], machine: Machine) -> tuple[dict[str, int], dict[str, int]]:
    """Return bytes by device that our own models hold, and what they may hold beside that.

    Where nothing can be measured, the estimated need is used. While a model is loading, nobody
    knows how much of it is already taken.
    """
    held: dict[str, int] = {}
    coming: dict[str, int] = {}

    def add(name: str, size: int) -> None:
        held[name] = held.get(name, 0) + size

    for resident in residents:
        gpus = [(name, size) for name, size in resident.on if name != RAM]
        if machine.gpu and gpus:
            planned = sum(size for _, size in gpus)
            used = memory_kept(resident.group, gpu=True)
            if used is None:
                used = planned if resident.settled else 0
                if not resident.settled:
                    for name, size in gpus:
                        coming[name] = coming.get(name, 0) + size
            for name, size in gpus:
                add(name, used * size // planned if planned else 0)
        if not machine.gpu or len(gpus) < len(resident.on):
            add(RAM, memory_kept(resident.group, gpu=False) or 0)
    return held, coming


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
