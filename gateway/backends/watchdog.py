"""Notices a llama-server that hangs, or works at nothing useful.

Time alone proves neither, since a long prompt keeps a slow machine busy for minutes without a
byte of answer. What is looked at instead:

- ``/health``, which llama-server answers from a thread of its own whatever the model is doing.
  Unanswered for ``deaf_after`` seconds, with three tries at least, the process is hung.
- With requests running: the CPU time that the process group uses. Prefill and generation use
  plenty, waiting for a GPU too (a busy wait), and so does sending each token. None for
  ``stuck_after`` seconds, and it is hung.
- What comes of that work: ``/slots``, its log, answers. A grammar can make the choice of a single
  token take for ever, and its client may be gone for long; /slots waits for that token, too. See
  :mod:`gateway.backends.overtime`. With nothing to show for ``overdue_after`` seconds of work, and
  what may take so long at the speed that was measured, it is a runaway; without anybody's request,
  so it is after ``left_after``. A build that doesn't tell of its slots is not judged by the former.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import NamedTuple

from gateway.backends.flights import Flights, Verdict, judge
from gateway.backends.overtime import Overtime
from gateway.backends.slot_looks import SlotLooks
from gateway.backends.slots import Slots, slots_in
from gateway.backends.speed import Speed
from gateway.backends.usage import group_members
from gateway.errors import GatewayError
from gateway.upstream import Upstream, UpstreamRequest

#: Tokens of prompts that llama-server reads in one step by default (``--batch-size``).
DEFAULT_BATCH = 2048
#: CPU seconds that a process group must use to count as working; answering /health takes far less.
_WORKING = 0.05
#: Seconds within which llama-server notices that a client left, unless it hangs.
_CANCELLED = 3.0
#: How many intervals one round may take, even with a busy event loop. A longer round means that
#: everything was paused (a suspended machine, a frozen container), which says nothing about the
#: child.
_ROUND = 4
#: The share of CPU time from which a child without requests counts as working.
_BUSY = 0.1


class Patience(NamedTuple):
    """The seconds for which a watchdog looks on."""

    interval: float = 5.0
    deaf_after: float = 20.0
    stuck_after: float = 120.0
    overdue_after: float = 45.0
    left_after: float = 20.0


PATIENCE = Patience()


class Hang(NamedTuple):
    """A hang: what is wrong with a child, and, of a runaway, which request has caused it."""

    what: str
    verdict: Verdict | None = None
    #: Whether the process was stopped, which no request can cause.
    stopped: bool = False


class Watchdog:
    """A watchdog over one running child, whose process group is ``group``.

    ``batch``: tokens of prompts that it reads in one step. ``looks``: those that others have at its
    slots.
    """

    def __init__(
        self,
        pool: Upstream,
        group: int,
        patience: Patience,
        flights: Flights,
        speed: Speed,
        *,
        batch: int = DEFAULT_BATCH,
        looks: SlotLooks | None = None,
    ) -> None:
        self._pool = pool
        self._looks = looks
        self._group = group
        self._patience = patience
        self._interval = patience.interval
        self._flights = flights
        self._speed = speed
        self._batch = batch
        self._overtime = Overtime(speed)
        self._tells = True  # of its slots: as long as it doesn't say that it won't
        self._slots: Slots | None = None  # as seen last
        self._mute_since: float | None = None  # when it was asked for them first, without an answer

    async def hung(self) -> Hang:
        """Return what is wrong, when something is; until then this waits."""
        _, deaf_after, stuck_after, *_ = self._patience
        heard = working = looked = time.monotonic()
        misses = 0
        used: float | None = None  # when it was seen to work last
        before: float | None = None  # the last time

        def leave_out_pauses() -> float:
            nonlocal heard, working, looked
            now = time.monotonic()
            paused = max(now - looked - _ROUND * self._interval, 0.0)
            heard, working, looked = heard + paused, working + paused, looked + paused
            return now

        while True:
            await asyncio.sleep(self._interval)
            answers = await self._answers()
            leave_out_pauses()
            if answers:
                heard, misses = time.monotonic(), 0
            else:
                misses += 1
                silent = time.monotonic() - heard
                if misses >= 3 and silent >= deaf_after:
                    cpu = await asyncio.to_thread(cpu_seconds, self._group)
                    # What came to a process that was deaf already hasn't made it so.
                    stopped = cpu is not None and (before is None or cpu - before <= _WORKING)
                    return Hang(f"has not answered /health for {silent:.0f} s", stopped=stopped)
            cpu = None
            if busy := self._pool.exchanges > 0 or self._flights.unsettled:
                cpu = await asyncio.to_thread(cpu_seconds, self._group)
            now = leave_out_pauses()
            if cpu is None or used is None or not self._pool.exchanges or cpu - used > _WORKING:
                working, used = now, cpu
            elif now - working >= stuck_after:
                what = f"has done nothing for {now - working:.0f} s with requests running"
                return Hang(what)
            passed = now - looked
            if busy:
                found = await self._overdue(passed, before, cpu, deaf=not answers)
                if found is not None:
                    return found
            looked, before = now, cpu

    async def _overdue(
        self, passed: float, used: float | None, cpu: float | None, *, deaf: bool
    ) -> Hang | None:
        """Return what is wrong with what it works for, if anything is.

        ``used`` and ``cpu``: what it had used of processors ``passed`` seconds ago, and has now.
        ``deaf``: it has just given no answer, so it isn't asked again.
        """
        flights, overtime = self._flights, self._overtime
        if deaf:
            self._slots, self._mute_since = None, self._mute_since or time.monotonic()
        else:
            await self._look_at_slots()
        now, slots = time.monotonic(), self._slots
        looks = self._looks.under_way if self._looks is not None else 0
        wanted = len(flights) > 0 or self._pool.exchanges > looks
        if cpu is None:  # no /proc
            worked = passed if wanted or slots is None or slots.tasks else 0.0
        else:
            worked = 0.0 if used is None else max(0.0, min(passed, cpu - used))
        overtime.note(worked, slots, self._speed.steps, wanted=wanted)
        mute = self._mute_since is not None
        if not wanted and not mute and worked < _BUSY * passed:
            overtime.seconds = 0.0
        if not overtime.seconds and not mute and used is not None:
            flights.settle(now - max(_CANCELLED, passed))
        floor = self._patience.overdue_after if wanted else self._patience.left_after
        if overtime.seconds <= floor or (wanted and not self._tells):
            return None
        pending, depth = (slots.pending, slots.depth) if slots is not None else (0, 0)
        if slots is None or slots.read is None:
            await asyncio.to_thread(flights.count)
            pending, depth = flights.tokens, flights.longest
        if overtime.seconds <= floor + self._speed.seconds(min(pending, self._batch), 1, depth):
            return None
        since = self._mute_since
        if since is None:
            since = now - overtime.seconds
        verdict = await asyncio.to_thread(judge, flights.all(), since)
        for_whom = "with nothing to show for it" if wanted else "that nobody waits for"
        return Hang(f"has computed for {overtime.seconds:.0f} s {for_whom}", verdict)

    async def _look_at_slots(self) -> None:
        """Ask for the state of the slots; None if there is no answer."""
        self._slots = None
        asked = time.monotonic()
        try:
            answer = await self._pool.fetch(
                UpstreamRequest("GET", "/slots"), timeout=self._interval
            )
        except GatewayError:
            self._mute_since = self._mute_since or asked
            return
        self._mute_since = None
        self._slots = slots_in(answer.body) if answer.status == 200 else None
        self._tells = self._slots is not None

    async def _answers(self) -> bool:
        try:
            await self._pool.fetch(UpstreamRequest("GET", "/health"), timeout=self._interval)
        except GatewayError:
            return False
        return True


def cpu_seconds(group: int, root: Path = Path("/")) -> float | None:
    """Return the CPU time of the living processes of a group; ``None`` without /proc (proc(5))."""
    ticks = 0
    found = False
    for pid in group_members(group):
        try:
            stat = (root / "proc" / str(pid) / "stat").read_text()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        ticks += int(fields[11]) + int(fields[12])
        found = True
    return ticks / os.sysconf("SC_CLK_TCK") if found else None
