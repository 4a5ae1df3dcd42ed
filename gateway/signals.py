"""The signals of a running gateway: TERM and INT end it, HUP reads its files again, USR1 lets it
log everything, or no longer.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

from gateway.logs import switch_debugging
from gateway.sdnotify import Notifier
from gateway.tasks import spawn

_log = logging.getLogger(__name__)


class Signals:
    """A listener to signals: the first TERM or INT sets ``stopping``, a second one :attr:`hurry`.

    HUP calls ``reload``, which ``notifier`` tells the service manager of: once the gateway is
    :meth:`started`, and one after the other.
    """

    def __init__(
        self, stopping: asyncio.Event, reload: Callable[[], Awaitable[None]], notifier: Notifier
    ) -> None:
        self._stopping = stopping
        self._reload = reload
        self._notifier = notifier
        #: Set when somebody doesn't want to wait for running requests.
        self.hurry = asyncio.Event()
        self._started = asyncio.Event()
        self._reloading = asyncio.Lock()

    def started(self) -> None:
        """Let files be read again, for which HUP may have asked meanwhile."""
        self._started.set()

    async def __aenter__(self) -> Signals:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        loop.add_signal_handler(signal.SIGUSR1, switch_debugging)
        loop.add_signal_handler(signal.SIGHUP, lambda: spawn(self._read_again(), name="reload"))
        return self

    async def __aexit__(self, *exc: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self._stopping.is_set():
            self.hurry.set()
        self._stopping.set()

    async def _read_again(self) -> None:
        await self._started.wait()
        async with self._reloading:
            self._notifier.reloading()
            try:
                await self._reload()
            except Exception:
                _log.exception("what was asked for by SIGHUP could not be read again")
            finally:  # the service manager waits for it
                self._notifier.ready()
