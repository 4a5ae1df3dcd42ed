"""GET /admin/system/history: memory and load over time, from samples that are taken meanwhile.

Taking one costs a fraction of a millisecond every ten seconds: files of /proc are read. A GPU's
driver is asked for it only as long as a model is loaded there, when it is awake, and once a minute;
else a GPU is in the samples when somebody else has looked at it (a load, a page, ``status``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiohttp import web

from gateway.access.accounting import ACCOUNTING, Accounting
from gateway.api.app_keys import SCHEDULER
from gateway.api.classic import json_response
from gateway.api.route import needs
from gateway.backends.devices import Device
from gateway.backends.ram import ram_device
from gateway.backends.scheduler import Scheduler
from gateway.errors import BadRequest
from gateway.quantities import parse_duration
from gateway.samples import FINE, WEEK, Sample, Samples
from gateway.scope import Scope
from gateway.tasks import cancel_and_wait, spawn

#: Seconds for which a look at the GPUs is good for samples, and between two that are made for them.
_SEEN_WITHIN: Final = 90.0
_LOOK_EVERY: Final = 60.0
#: Seconds: over less than that no speed is told.
_SHORT: Final = 1.0
_LEAST: Final = 60.0
_log = logging.getLogger(__name__)


class _Counted(NamedTuple):
    """Tokens so far, at a moment of time.monotonic()."""

    at: float
    prompt: int
    completion: int


class History:
    """Takes the samples, and keeps them."""

    def __init__(
        self, scheduler: Scheduler, accounting: Accounting, *, root: Path = Path("/")
    ) -> None:
        self._scheduler = scheduler
        self._accounting = accounting
        self._root = root
        self._counted = self._count()
        self.samples = Samples()
        #: What there is or was: by name its description and its size in bytes.
        self.devices: dict[str, tuple[str, int]] = {}

    async def keep(self) -> None:
        """Take one every :data:`FINE` seconds, until cancelled, whatever goes wrong with some."""
        failing = False
        while True:
            await asyncio.sleep(FINE)
            try:
                await self._look_at_gpus()
                before, self._counted = self._counted, self._count()
                self.samples.add(await self._take(before, self._counted))
            except Exception:
                if not failing:
                    _log.exception("memory and load cannot be seen, trying again")
                failing = True
            else:
                if failing:
                    _log.info("memory and load are seen again")
                failing = False

    async def now(self) -> Sample:
        """One of this moment, which isn't kept."""
        counted = self._count()
        sample = await self._take(self._counted, counted)
        if counted.at - self._counted.at >= _SHORT or (last := self.samples.last) is None:
            return sample
        return sample._replace(prompt=last.prompt, completion=last.completion)

    async def _take(self, before: _Counted, counted: _Counted) -> Sample:
        scheduler = self._scheduler
        ram, gateway = await asyncio.to_thread(_read, self._root)
        devices = [*self._gpus(), ram]
        for device in devices:
            self.devices[device.name] = (device.description, device.total)
        models = scheduler.status()
        held = [one.memory_held for one in models if one.memory_held is not None]
        seconds = max(counted.at - before.at, _SHORT)
        return Sample(
            time.time(),
            tuple((one.name, one.total - one.free) for one in devices if one.free is not None),
            gateway,
            sum(held),
            scheduler.in_flight,
            sum(one.queued for one in models),
            max(counted.prompt - before.prompt, 0) / seconds,
            max(counted.completion - before.completion, 0) / seconds,
        )

    def _gpus(self) -> tuple[Device, ...]:
        """Those there are, as they were seen last, if that isn't long ago."""
        accounts = self._scheduler.accounts
        if accounts is None or accounts.capacity is None or not accounts.capacity.machine.gpu:
            return ()
        if time.monotonic() - accounts.capacity.memory.seen > _SEEN_WITHIN:
            return ()
        return accounts.capacity.machine.devices

    async def _look_at_gpus(self) -> None:
        accounts = self._scheduler.accounts
        if accounts is None or accounts.capacity is None or not accounts.capacity.machine.gpu:
            return
        gpus = {device.name for device in accounts.capacity.machine.devices}
        if any(gpus.intersection(one.devices) for one in self._scheduler.status()):
            await self._scheduler.see_memory(within=_LOOK_EVERY)

    def _count(self) -> _Counted:
        prompt, completion = self._accounting.tokens
        return _Counted(time.monotonic(), prompt, completion)


def _read(root: Path) -> tuple[Device, int | None]:
    """RAM, and the bytes of it that this process holds (proc(5), statm)."""
    held = None
    with contextlib.suppress(OSError, LookupError, ValueError):
        pages = int((root / "proc/self/statm").read_text().split()[1])
        held = pages * os.sysconf("SC_PAGE_SIZE")
    return ram_device(root), held


HISTORY = web.AppKey("history", History)


def make(app: web.Application) -> None:
    """Take samples for as long as ``app`` runs."""
    app[HISTORY] = History(app[SCHEDULER], app[ACCOUNTING])
    app.cleanup_ctx.append(_keep)


async def _keep(app: web.Application) -> AsyncIterator[None]:
    task = spawn(app[HISTORY].keep(), name="take samples of memory and load")
    yield
    await cancel_and_wait(task)


@needs(Scope.ADMIN)
async def system_history(request: web.Request) -> web.Response:
    """GET /admin/system/history: memory of devices, models and gateway, requests and tokens/s.

    ``?range=``: how far back, like `1h` (so it is without), `24h` or `7d`, which is the most. Up
    to an hour there is a sample every 10 seconds, beyond that one every 5 minutes, with the most
    memory of those. The last one is of this moment. Each list has one value for each of `times`.
    """
    seconds = _range(request)
    history = request.app[HISTORY]
    now = await history.now()
    every, samples = history.samples.since(now.at - seconds, now.at)
    samples = [*(one for one in samples if one.at < now.at), now]
    return json_response(_report(history, seconds, every, samples))


def _report(history: History, seconds: float, every: int, samples: list[Sample]) -> dict[str, Any]:
    used = [dict(one.used) for one in samples]
    return {
        "range": seconds,
        "every": every,
        "times": [round(one.at, 3) for one in samples],
        "devices": [
            {
                "name": name,
                "description": description,
                "total": total,
                "used": [each.get(name) for each in used],
            }
            for name, (description, total) in history.devices.items()
            if any(name in each for each in used)
        ],
        "gateway_memory": [one.gateway for one in samples],
        "models_memory": [one.models for one in samples],
        "running": [one.running for one in samples],
        "waiting": [one.waiting for one in samples],
        "prompt_tokens_per_second": [round(one.prompt, 2) for one in samples],
        "completion_tokens_per_second": [round(one.completion, 2) for one in samples],
    }


def _range(request: web.Request) -> float:
    try:
        seconds = parse_duration(request.query.get("range", "1h"))
    except ValueError:
        seconds = 0.0
    if not _LEAST <= seconds <= WEEK:
        raise BadRequest(
            "`range` must be a duration from 1m to 7d, like 30m, 1h or 24h", param="range"
        )
    return seconds
