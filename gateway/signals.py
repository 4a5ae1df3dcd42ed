"""The signals of a running gateway: TERM and INT end it, HUP reads its files again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from gateway.sdnotify import Notifier
from gateway.tasks import spawn


class Signals:
    """A listener to signals: the first TERM or INT sets ``stopping``, a second one :attr:`hurry`.

    HUP calls ``reload``, which ``notifier`` tells the service manager of.
    """

    def __init__(
        self, stopping: asyncio.Event, reload: Callable[[], Awaitable[None]], notifier: Notifier
    ) -> None:
        self._stopping = stopping
        self._reload = reload
        self._notifier = notifier
        #: Set when somebody doesn't want to wait for running requests.
        self.hurry = asyncio.Event()

    async def __aenter__(self) -> Signals:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: spawn(self._read_again(), name="reload"))
        return self

    async def __aexit__(self, *exc: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self._stopping.is_set():
            self.hurry.set()
        self._stopping.set()

    async def _read_again(self) -> None:
        self._notifier.reloading()
        await self._reload()
        self._notifier.ready()
