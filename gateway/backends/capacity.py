"""What this machine has left for models, looked at again and again. For one event loop.

A look takes as long as ``llama-server --list-devices`` does: next to nothing where that has no
GPU support, a second where a driver has to wake up. What other programs leave of a device is what
is free of it, and what our own models hold there; it does not change with what those do.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gateway.backends.devices import Device
from gateway.backends.gpus_seen import GpusSeen
from gateway.backends.machine import Machine
from gateway.backends.placement import Card, Demand, Look, Memory, Resident
from gateway.backends.ram import RAM
from gateway.backends.usage import memory_kept

_log = logging.getLogger(__name__)

_MIB = 2**20
_GIB = 2**30
#: Left free beside what is measured: a driver, a file cache, somebody's browser may need it next.
_MARGIN = 256 * _MIB
#: Seconds for which a look is good, or ten times as long as it took.
_FRESH = 1.0


class Capacity:
    """The devices and their memory, as last seen.

    ``read`` looks at the machine, and blocks. ``budget`` is ``scheduler.memory_budget`` in bytes,
    ``None`` for what there is. ``seen`` remembers which GPUs there were.
    """

    def __init__(
        self, read: Callable[[], Machine], budget: int | None, seen: GpusSeen | None = None
    ) -> None:
        self._read = read
        self._budget = budget
        self._seen = seen
        self._until = 0.0  # monotonic; until then the last look is good
        self.machine = Machine((), "not looked at")
        self.memory = Memory()
        #: What is wrong with it: a GPU that has gone.
        self.problem: str | None = None

    @property
    def budget(self) -> int:
        """Bytes that all models together may take."""
        if self._budget is not None:
            return self._budget
        return self.machine.budget if self.machine.devices else sys.maxsize

    def now(self, *, looking: bool) -> Memory:
        """The memory for a decision that is made now."""
        if looking:
            return replace(self.memory, look=Look.UNDER_WAY)
        if time.monotonic() > self._until:
            return replace(self.memory, look=Look.STALE)
        return self.memory

    async def look(self, residents: Sequence[Resident] = ()) -> None:
        """See what is free. Where that fails, what was seen before stays."""
        started = time.monotonic()
        try:
            machine, memory, problem = await asyncio.to_thread(self._look, residents)
        except Exception:
            # Whatever is odd about this machine must not keep every model from loading.
            _log.exception("the memory of this machine cannot be told")
            self.memory = replace(self.memory, seen=started)
        else:
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

    def _look(self, residents: Sequence[Resident]) -> tuple[Machine, Memory, str | None]:
        machine = self._read()
        problem = self._seen.compare(machine) if self._seen is not None else None
        held = _held(residents, machine)
        alone = len(machine.devices) == 1
        cards = tuple(
            _card(device, self._budget if alone else None, held.get(device.name, 0))
            for device in machine.devices
        )
        ram = None if machine.ram is None else _card(machine.ram, None, held.get(RAM, 0))
        return machine, Memory(cards, ram), problem

    def report(self) -> dict[str, Any]:
        """All of it, for administrators. Bytes; ``left`` is what other programs leave models."""
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
        """Why there is not enough memory for the model ``name``, with the numbers."""
        cards = [c for c in self.memory.cards if not demand.devices or c.name in demand.devices]
        if demand.beside and self.memory.ram is not None:
            cards.append(self.memory.ram)
        totals = {d.name: d.total for d in self.machine.devices}
        each = "; ".join(
            f"{card.name}: {_gib(card.left)} of {_gib(totals.get(card.name, card.size))}"
            for card in cards
        )
        needs = _gib(demand.size) + (f" and {_gib(demand.beside)} of RAM" if demand.beside else "")
        return (
            f"{name!r} needs {needs} ({source}), and other programs on this machine leave less "
            f"for models, even with all that may go unloaded: {each}"
        )


def _card(device: Device, size: int | None, held: int) -> Card:
    """``size``: what the configuration says instead of what there is less a reserve."""
    size = device.budget if size is None else size
    if device.free is None:
        return Card(device.name, size, size)
    return Card(device.name, size, max(min(size, device.free + held - _MARGIN), 0))


def _held(residents: Sequence[Resident], machine: Machine) -> dict[str, int]:
    """Bytes by device that our own models hold.

    What cannot be measured is what was said to be needed, or nothing while a model is loading.
    """
    held: dict[str, int] = {}

    def add(name: str, size: int) -> None:
        held[name] = held.get(name, 0) + size

    for resident in residents:
        gpus = [(name, size) for name, size in resident.on if name != RAM]
        if machine.gpu and gpus:
            planned = sum(size for _, size in gpus)
            used = memory_kept(resident.group, gpu=True)
            if used is None:
                used = planned if resident.settled else 0
            for name, size in gpus:
                add(name, used * size // planned if planned else 0)
        if not machine.gpu or len(gpus) < len(resident.on):
            add(RAM, memory_kept(resident.group, gpu=False) or 0)
    return held


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
