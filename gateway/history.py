"""Memory and load over time, from samples that are taken while the gateway runs.

A sample is taken every ten seconds and costs a fraction of a millisecond, as files of /proc are
read. A GPU's driver is asked once a minute, and only while a model is loaded there; otherwise a
sample has a GPU only if somebody else has just looked at it (a load, a page, ``status``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from gateway.access.accounting import Accounting
from gateway.backends.devices import Device
from gateway.backends.ram import ram_device
from gateway.backends.scheduler import Scheduler
from gateway.samples import FINE, Sample, Samples

#: Seconds for which a measurement of GPUs is used for samples, and between two that are made for
#: samples.
_SEEN_WITHIN: Final = 90.0
_LOOK_EVERY: Final = 60.0
#: The least time, in seconds, over which a speed is computed.
SHORT: Final = 1.0
_log = logging.getLogger(__name__)


class _Counted(NamedTuple):
    """Tokens so far, at a time of ``time.monotonic()``."""

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
        #: The devices that there are or were: name -> description, and size in bytes.
        self.devices: dict[str, tuple[str, int]] = {}

    async def keep(self) -> None:
        """Take a sample every :data:`FINE` seconds until cancelled, even if some fail."""
        failing = False
        while True:
            await asyncio.sleep(FINE)
            try:
                await self.look_at_gpus()
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
        """Return a sample of this moment, without keeping it."""
        counted = self._count()
        sample = await self._take(self._counted, counted)
        if counted.at - self._counted.at >= SHORT or (last := self.samples.last) is None:
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
        seconds = max(counted.at - before.at, SHORT)
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
        """Return the GPUs as they were last seen, if that isn't long ago."""
        accounts = self._scheduler.accounts
        if accounts is None or accounts.capacity is None or not accounts.capacity.machine.gpu:
            return ()
        if time.monotonic() - accounts.capacity.memory.seen > _SEEN_WITHIN:
            return ()
        return accounts.capacity.machine.devices

    async def look_at_gpus(self) -> None:
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
    """Return RAM, and the bytes of it that this process holds (proc(5), statm)."""
    held = None
    with contextlib.suppress(OSError, LookupError, ValueError):
        pages = int((root / "proc/self/statm").read_text().split()[1])
        held = pages * os.sysconf("SC_PAGE_SIZE")
    return ram_device(root), held
