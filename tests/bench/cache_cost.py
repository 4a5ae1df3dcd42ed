"""What the cache of conversations costs a request: the gateway's own CPU time, on and off in turns.

The llama-server is the scripted one, whose answers cost nothing and are never worth saving: what is
seen is what every request pays, for a conversation that is in a slot.
"""

from __future__ import annotations

import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.load import Job
from tests.bench.measuring import measured
from tests.bench.proxies import GatewayProxy, Upstream

#: Messages of a conversation, each of about 250 characters.
MESSAGES = (10, 100)
#: As many as there are slots, so that nobody waits.
_CLIENTS = 4


class Plan(NamedTuple):
    """``rounds`` of so many ``seconds``, for each number of messages, on and off.

    Those for which there is no time are left out, but for the first.
    """

    rounds: int
    seconds: float


class Cost(NamedTuple):
    """Microseconds of a request of so many messages: the least of all rounds, and their medians."""

    messages: int
    off: float
    on: float
    off_median: float
    on_median: float

    @property
    def ratio(self) -> float:
        return self.on / self.off

    def cells(self) -> list[str]:
        """Return a line of the table."""
        return [
            f"  {self.messages} messages (medians: {self.off_median:.1f}, {self.on_median:.1f})",
            f"{self.off:.1f}",
            f"{self.on:.1f}",
            f"{self.on - self.off:+.1f} ({self.ratio - 1:+.1%})",
        ]


class PlainGateway(GatewayProxy):
    """The gateway that saves nothing."""

    name = "gateway off"
    slots = _CLIENTS
    saves = False

    def configuration(self) -> Mapping[str, object]:
        return {**super().configuration(), "cache": {"enabled": self.saves}}


class SavingGateway(PlainGateway):
    """The gateway that saves conversations."""

    name = "gateway on"
    saves = True


def measure(plan: Plan, until: float, say: Callable[[str], None]) -> tuple[list[Cost], float]:
    """Return the costs, and how many calls of conversations/ a request makes where that is off.

    No round begins after ``until``, in monotonic time, but the first.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        upstream = Upstream(folder)
        pair = (
            PlainGateway(folder, upstream, tcp=False),
            SavingGateway(folder, upstream, tcp=False),
        )
        try:
            for gateway in pair:
                gateway.prepare()
            found: dict[tuple[str, int], list[float]] = {}
            for number in range(plan.rounds):
                if number and time.monotonic() > until:
                    break
                say(f"CPU of a request, with the cache and without: {number + 1} of {plan.rounds}")
                # Anew for each round, and in turns first: a process may be lucky with its memory.
                for gateway in pair if number % 2 else pair[::-1]:
                    _round(gateway, plan.seconds, found)
            calls = _calls(pair[0], folder)
        finally:
            for gateway in pair:
                gateway.end()
            upstream.end()
    costs = []
    for messages in MESSAGES:
        off, on = (found[gateway.name, messages] for gateway in pair)
        medians = statistics.median(off), statistics.median(on)
        costs.append(Cost(messages, min(off), min(on), *medians))
    return costs, calls


def _round(
    gateway: GatewayProxy, seconds: float, found: dict[tuple[str, int], list[float]]
) -> None:
    gateway.start()
    try:
        for messages in MESSAGES:
            result = measured(gateway, _job(gateway, messages, seconds))
            spent = result["cpu"] / result["answers"] * 1e6
            found.setdefault((gateway.name, messages), []).append(spent)
    finally:
        gateway.end()


def _job(gateway: GatewayProxy, messages: int, seconds: float) -> Job:
    return Job(
        kind="requests",
        port=gateway.port,
        clients=_CLIENTS,
        seconds=seconds,
        rate=None,
        models=gateway.models,
        key=gateway.key,
        messages=messages,
    )


def _calls(gateway: GatewayProxy, folder: Path) -> float:
    """Return how many functions of gateway/conversations a request calls."""
    gateway.profile_to = folder / "calls.out"
    gateway.start()
    try:
        answers = measured(gateway, _job(gateway, MESSAGES[0], 0.5))["answers"]
    finally:
        gateway.end()
    stats: Any = pstats.Stats(str(gateway.profile_to))
    called = [
        row[1]
        for (file, _, function), row in stats.stats.items()
        if "gateway/conversations/" in file and function != "<module>"
    ]
    return sum(calls for calls in called if calls >= answers) / answers
