"""How long what requests are sent to is given to tell of its death, and which error tells of it."""

from __future__ import annotations

import copy
from typing import Final, Protocol

from gateway.errors import GatewayError

#: Seconds to wait for news of a death after a connection broke (the kernel closes a process's
#: sockets before its parent hears of its end), and after one was refused, which is a sure sign.
NEWS_OF_DEATH: Final = 1.0
CERTAIN_NEWS: Final = 10.0


class Mortal(Protocol):
    """What requests are sent to: how many times it has died, and how the last time."""

    deaths: int
    last_death: GatewayError | None


def reason_of(error: GatewayError, of: Mortal, deaths: int) -> GatewayError:
    """Return the death by which a request got ``error``, if it has died more than ``deaths`` times:
    a lost connection tells nobody anything.
    """
    if of.deaths > deaths and of.last_death is not None:
        return copy.copy(of.last_death)  # each raises one of its own
    return error
