"""A state of the page that is worth a look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.web.look.camera import Shots
from tests.web.look.gateways import Gateways

Take = Callable[[Gateways, Shots], None]


@dataclass(frozen=True)
class State:
    """``take`` makes it, in a window of each size, and its pictures."""

    name: str
    title: str
    take: Take


#: All of them, in the order of the modules that make them.
STATES: list[State] = []


def state(title: str) -> Callable[[Take], Take]:
    """Make a state of a function, with the name of that."""

    def add(take: Take) -> Take:
        STATES.append(State(take.__name__.strip("_").replace("_", "-"), title, take))
        return take

    return add
