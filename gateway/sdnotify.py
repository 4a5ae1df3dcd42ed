"""systemd's readiness protocol: one datagram of ``KEY=VALUE`` lines to ``$NOTIFY_SOCKET``.

See sd_notify(3) and sd_watchdog_enabled(3). Without a ``NOTIFY_SOCKET`` every call does nothing,
so callers never ask whether they run under systemd. Nothing here blocks or raises: telling the
service manager must never be what stops the service. ``os.environ`` is left as it is; children
get an environment of their own from where they are started.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)


class Notifier:
    """A notifier of the service manager that started us, if one did.

    Each call returns whether the message was handed over: False without a service manager, or if
    its socket is gone or full.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        env = os.environ if environ is None else environ
        self._address = _socket_address(env.get("NOTIFY_SOCKET", ""))
        self.watchdog_interval = _watchdog_interval(env) if self._address else None
        """Seconds between two :meth:`watchdog` calls, half of what systemd waits; None: off."""

    @property
    def enabled(self) -> bool:
        """Whether a service manager listens."""
        return self._address is not None

    def ready(self, status: str = "") -> bool:
        """Tell that starting, or reloading, is finished: requests are answered."""
        return self._send("READY=1", *_status(status))

    def reloading(self, status: str = "") -> bool:
        """Tell that the configuration is read again; :meth:`ready` must follow.

        The time stamp tells systemd which of two reloads this one is (Type=notify-reload).
        """
        stamp = time.monotonic_ns() // 1000  # CLOCK_MONOTONIC, as systemd's own
        return self._send("RELOADING=1", f"MONOTONIC_USEC={stamp}", *_status(status))

    def stopping(self, status: str = "") -> bool:
        """Tell that we are shutting down, by a signal or by ourselves."""
        return self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> bool:
        """Set the one line for ``systemctl status``."""
        return self._send(*(_status(text) or ("STATUS=",)))

    def watchdog(self) -> bool:
        """Tell that we are still alive."""
        return self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Let the present start, reload or stop take ``seconds`` from now, whatever the unit says.

        This is for a ``shutdown_timeout`` that is higher than the unit's TimeoutStopSec.
        """
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    async def keep_alive(self, alive: Callable[[], bool]) -> None:
        """Feed the watchdog as long as the event loop turns and ``alive()`` says that the rest
        lives, too; return at once if it is off.
        """
        if self.watchdog_interval is None:
            return
        while True:
            if alive():
                self.watchdog()
            else:
                _log.error("the watchdog is not fed: the service manager will start us anew")
            await asyncio.sleep(self.watchdog_interval)

    def _send(self, *lines: str) -> bool:
        if self._address is None:
            return False
        try:
            # A socket for each message: they are rare, and systemd may have been re-executed.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except (OSError, ValueError) as error:  # gone or full; a path that cannot be one
            _log.debug("the service manager was not told %s: %s", lines[0], error)
            return False
        return True


def _socket_address(value: str) -> str | None:
    """Return a path stays; ``@name`` is the abstract socket ``\\0name`` (unix(7))."""
    if value.startswith("/"):
        return value
    if value.startswith("@") and len(value) > 1:
        return "\0" + value[1:]
    if value:
        _log.debug("NOTIFY_SOCKET is neither a path nor @name; not used")
    return None


def _watchdog_interval(env: Mapping[str, str]) -> float | None:
    try:
        microseconds = int(env.get("WATCHDOG_USEC", "0"))
        # Set for one process only: a child that inherits the variables is not meant.
        meant = int(env.get("WATCHDOG_PID") or os.getpid()) == os.getpid()
    except ValueError:
        _log.debug("WATCHDOG_USEC or WATCHDOG_PID is not a number; no watchdog")
        return None
    return microseconds / 2_000_000 if microseconds > 0 and meant else None


def _status(text: str) -> tuple[str, ...]:
    # A line break would begin a variable of its own.
    return (f"STATUS={' '.join(text.split())}",) if text.strip() else ()
