"""The room for a model on several machines together, where none alone could hold it. Pure.

One of them leads: its llama-server has the model's files, and devices of the others are lent to it.
Only models whose entries allow it span machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.backends.machine_room import MachineRoom
from gateway.backends.placement import Memory, Placement, machine_of
from gateway.backends.ram import RAM

#: Between the names of the machines of a span: no node has it in its name.
_AND: Final = " + "


class SpanRoom(MachineRoom):
    """The room on ``machines``, of which the first one leads."""

    def __init__(self, machines: Sequence[MachineRoom]) -> None:
        cards = [card for machine in machines for card in machine.memory.cards]
        name = _AND.join(machine.name for machine in machines)
        super().__init__(name, Memory(tuple(cards), machines[0].memory.ram))
        for machine in machines:
            for model, on in machine.taken.items():
                self.taken[model] = self.taken.get(model, ()) + on
            for model, on in machine.staying.items():
                self.staying[model] = self.staying.get(model, ()) + on

    def _placed(self, on: Placement, size: int) -> Placement:
        """Return ``on`` so that it says who leads: a device of that machine comes first."""
        leads = leading(self.name)
        own = [part for part in on if machine_of(part[0]) == leads]
        others = [part for part in on if machine_of(part[0]) != leads]
        return (*(own or [(f"{leads}/{RAM}", 0)]), *others)


def leading(machine: str) -> str:
    """Return the name of the machine that leads; of one alone its own."""
    return machine.partition(_AND)[0]


def is_span(machine: str) -> bool:
    """Return whether it is the name of several machines together."""
    return _AND in machine


def members(machine: str) -> list[str]:
    """Return the names of the machines of a span; of one alone its own."""
    return machine.split(_AND)
