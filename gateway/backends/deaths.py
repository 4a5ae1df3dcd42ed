"""Counts the deaths of a model's process in a row, and says how long to wait before the next start.

And in words how one ended.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable

from gateway.backends.backend import OUT_OF_MEMORY, Environment, State
from gateway.backends.counts import Ended
from gateway.backends.oom import looks_like_oom
from gateway.backends.watchdog import Hang
from gateway.errors import GatewayError


class Deaths:
    """The deaths of one model's processes, judged by the times and numbers of ``environment``."""

    def __init__(self, environment: Environment) -> None:
        self._env = environment
        #: How many deaths in a row came soon after a start, or during one.
        self.quick = 0
        self._counted = True  # the last one, among those

    def note(self, lived: float, *, counts: bool) -> None:
        """Note a death, ``lived`` seconds after the process was ready.

        ``counts``: whether it tells something about the model or this machine, rather than about a
        request.
        """
        if counts:
            self.quick = self.quick + 1 if lived < self._env.quick_death else 1
        self._counted = counts

    def note_end(self, lived: float) -> None:
        """Note an intended end, ``lived`` seconds after the process was ready."""
        if lived >= self._env.quick_death:
            self.quick = 0

    def forget(self) -> None:
        """Forget all deaths, because somebody asked for the model explicitly."""
        self.quick = 0

    def sentence(self) -> tuple[State, float]:
        """Return what it is in now that it has died, and for how many seconds at least."""
        env = self._env
        further = self.quick - env.quick_deaths_allowed
        if self._counted and further >= 0:
            return State.FAILED, min(env.failed_first * 2.0 ** min(further, 32), env.failed_cap)
        return State.BACKOFF, min(env.backoff_first * 2 ** max(0, self.quick - 1), env.backoff_cap)


def how_it_ended(status: int) -> str:
    """Return an exit status in words. Negative is a signal, as subprocess has it."""
    if status >= 0:
        return f"exited with status {status}"
    if -status == signal.SIGILL:
        return (
            "was ended by SIGILL: it was compiled for a CPU with instructions this one lacks; "
            "use another build of llama.cpp"
        )
    if -status == signal.SIGKILL:
        return "was killed (SIGKILL), often by the system when memory runs out"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


def why_it_ended(status: int, last_lines: Iterable[str], hung: Hang | None) -> Ended:
    """Return why a process ended that was ready, as metrics tell it.

    ``status``: as in :func:`how_it_ended`; ``hung``: what it was killed for, if that was us.
    """
    if hung is not None:
        return Ended.HUNG if hung.verdict is None else Ended.RUNAWAY
    if -status == signal.SIGKILL:
        return Ended.KILLED
    return Ended.OUT_OF_MEMORY if looks_like_oom(status, last_lines) else Ended.CRASHED


def not_started(failure: GatewayError) -> Ended:
    """Return why a process ended that never was ready."""
    return Ended.OUT_OF_MEMORY if failure.code == OUT_OF_MEMORY else Ended.NOT_STARTED
