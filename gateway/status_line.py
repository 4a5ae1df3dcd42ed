"""The line that ``systemctl status`` shows: where the gateway listens, and what it is doing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from gateway.plurals import counted
from gateway.sdnotify import Notifier

#: Seconds between two lines, and between two while it ends.
_EVERY: Final = 10.0
_EVERY_AT_THE_END: Final = 1.0


class LoadedModels(Protocol):
    """The scheduler, as far as the line shows it."""

    @property
    def in_flight(self) -> int: ...
    def loaded(self) -> list[str]: ...


class CountedTokens(Protocol):
    """The accounting, as far as the line shows it."""

    @property
    def tokens(self) -> tuple[int, int]: ...


class ShownGateway(Protocol):
    """The gateway, as far as the line shows it."""

    @property
    def urls(self) -> Sequence[str]: ...
    @property
    def scheduler(self) -> LoadedModels: ...
    @property
    def accounting(self) -> CountedTokens: ...


async def keep_told(notifier: Notifier, gateway: ShownGateway, every: float = _EVERY) -> None:
    """Tell the service manager what ``gateway`` does, until cancelled; at once if there is none."""
    if not notifier.enabled:
        return
    loop = asyncio.get_running_loop()
    told = ""
    before, at = gateway.accounting.tokens[1], loop.time()
    while True:
        await asyncio.sleep(every)
        written, now = gateway.accounting.tokens[1], loop.time()
        rate = (written - before) / max(now - at, 1e-3)
        before, at = written, now
        scheduler = gateway.scheduler
        text = line(gateway.urls, scheduler.loaded(), scheduler.in_flight, rate)
        if text != told:
            notifier.status(text)
            told = text


async def keep_told_of_the_end(
    notifier: Notifier, scheduler: LoadedModels, within: float, every: float = _EVERY_AT_THE_END
) -> None:
    """Tell the service manager, until cancelled, how many requests are still to be answered, and
    that this takes ``within`` so many seconds.
    """
    if not notifier.enabled:
        return
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while True:
        notifier.status(line_at_the_end(scheduler.in_flight, end - loop.time()))
        await asyncio.sleep(every)


def line_at_the_end(running: int, left: float) -> str:
    """Return the line of a gateway that ends within ``left`` seconds."""
    if not running:
        return "stopping"
    return f"stopping: answers {counted(running, 'request')}, for {max(left, 0):.0f} s at most"


def line(urls: Sequence[str], loaded: Sequence[str], running: int, rate: float) -> str:
    """Return the line. ``rate``: tokens of answers a second."""
    parts = [f"listening on {', '.join(urls)}"]
    parts.append(f"loaded: {', '.join(loaded)}" if loaded else "no model loaded")
    if running:
        parts.append(counted(running, "request"))
    if rate >= 1:
        parts.append(f"{rate:.0f} tokens/s")
    return "; ".join(parts)
