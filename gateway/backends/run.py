"""What a backend asks of one run of a llama-server, wherever that runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gateway.backends.counts import Ended
from gateway.backends.watchdog import Hang
from gateway.errors import GatewayError
from gateway.upstream import UpstreamPool

if TYPE_CHECKING:
    from gateway.backends.tuning import Tuning

#: The ``code`` of the error of a llama-server whose machine is lost.
NODE_LOST = "node_lost"
#: That of a load that could not be begun because the machine turned out to be away.
NODE_UNREACHABLE = "node_unreachable"
#: What has failed so may be placed on another machine.
PLACED_ANEW = (NODE_LOST, NODE_UNREACHABLE)


@dataclass(frozen=True, slots=True)
class End:
    """How the process of a run ended that was ready, and that nobody asked to end.

    ``by_request``: a request may have caused it. ``counts``: it says something about the model, or
    the machine.
    """

    error: GatewayError
    why: Ended
    by_request: bool = False
    counts: bool = True


class RunningChild(Protocol):
    """The process of a run."""

    @property
    def pid(self) -> int | None:
        """Its id, if it is one of this machine."""

    async def wait(self) -> int:
        """Wait until it has ended; returns its status, negative for a signal."""

    def kill(self) -> None:
        """Send SIGKILL to its group, without waiting."""


class Run(Protocol):
    """One run, from its command line to the last trace of it."""

    @property
    def child(self) -> RunningChild | None:
        """Its process, once it has been started and until it is cleaned up."""

    @property
    def pool(self) -> UpstreamPool | None:
        """The connections to it, once it has been started."""

    @property
    def degraded(self) -> str | None:
        """Why it runs on the CPU though it shouldn't."""

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint that saved slots must have to fit it; None if slots can't be saved."""

    @property
    def weights(self) -> int:
        """The bytes of the model's file."""

    @property
    def progress(self) -> float | None:
        """The loaded share of the model, from 0 to 1, while it starts and if that is known."""

    @property
    def tuning(self) -> Tuning | None:
        """What was chosen for it, with the values that came of that; once it is ready."""

    async def prepare(self, tuning: Tuning | None, devices: tuple[str, ...]) -> None:
        """Do what comes before its process. Nothing of it is left if this fails."""

    async def until_ready(self) -> RunningChild:
        """Start what was prepared, and return when GET /health answers 200."""

    def refuse_the_cpu(self) -> None:
        """Raise :class:`LoadFailed` where only a GPU will do, and it uses none."""

    def how_it_ended(self, status: int, hung: Hang | None) -> End:
        """Return how its process ended; ``hung``: what it was killed for, if that was us."""

    async def disconnect(self) -> None:
        """Close every connection to it."""

    async def end(self) -> None:
        """End what is left of it. A call that was cancelled can be made again and goes on."""
