"""Finds out whether a client that has closed its side has gone, or waits for its answer.

TCP says the same of both, a FIN. nginx, Go's net/http and uvicorn take it for the end, but who
has merely said all (``shutdown(SHUT_WR)``: ``nc -N``, socat, scripts) still reads (RFC 9293, 3.6).
Only what is written tells them apart: where the socket is closed, the client's kernel answers with
a reset. So something is written at once that is no part of an answer:

- before its head ``100 Continue``, which clients read over, asked for or not (RFC 9110, 15.2;
  Python's http.client only this one of the 1xx);
- within chunked coding a zero at the front of the next chunk's size (RFC 9112, 7.1).

Once more a few times: relays between (``ssh -L``, Docker's proxy) pass a FIN on, and need a write
or two to find out that their client is gone. Where nothing can be written (HTTP/1.0, TLS, whose end
asyncio has for both directions only) a FIN is the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable
from typing import Final

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
ZERO: Final = b"0"
#: As many zeros as fit before a chunk size with the 16 digits that Go accepts.
_ZEROS: Final = 8
#: Seconds before each of the first probes, and before every later one.
_AGAIN: Final = (0.1, 0.3, 1.0, 3.0)
_LATER: Final = 10.0


class HalfClosed:
    """A watch over a half-closed connection that aborts it if its client turns out to be gone.

    ``probe`` says what can be written at the moment: :data:`CONTINUE`, :data:`ZERO` or nothing.
    """

    __slots__ = ("_loop", "_probe", "_probes", "_timer", "_transport", "_watch", "_zeros")

    def __init__(self, transport: asyncio.Transport, probe: Callable[[], bytes]) -> None:
        """Raises ``OSError`` where it can't be found out."""
        self._transport = transport
        self._probe = probe
        self._probes = self._zeros = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._watch = _resets(transport)
        self._loop.add_reader(self._watch.fileno(), self._gone)
        self._send_probe()

    def _send_probe(self) -> None:
        """Write, and see whether that is answered with a reset."""
        if self._transport.is_closing():
            return
        # While something is still to go out, that will tell.
        data = b"" if self._transport.get_write_buffer_size() else self._probe()
        if data == ZERO:
            self._zeros += 1
        if data and self._zeros <= _ZEROS:
            self._transport.write(data)
        pause = _AGAIN[self._probes] if self._probes < len(_AGAIN) else _LATER
        self._probes += 1
        self._timer = self._loop.call_later(pause, self._send_probe)

    def _gone(self) -> None:
        self.end()
        self._transport.abort()

    def end(self) -> None:
        """Nobody wants to know any more."""
        self._probe = bytes  # nothing; the old one points back to the connection
        if self._timer is not None:
            self._timer.cancel()
        if not self._watch.closed:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()


def look_after(transport: asyncio.Transport, probe: Callable[[], bytes]) -> HalfClosed | None:
    """See :class:`HalfClosed`; None where a FIN has to be taken for the end."""
    with contextlib.suppress(OSError):
        return HalfClosed(transport, probe)
    return None


def _resets(transport: asyncio.Transport) -> select.epoll:
    """Return what becomes readable when the connection is reset.

    The loop itself reads no more of a connection that has come to its end, and so misses it.
    """
    if not hasattr(select, "epoll"):
        raise OSError("no epoll here")
    watch = select.epoll()
    try:
        # EPOLLERR and EPOLLHUP are reported in any case (epoll_ctl(2)).
        watch.register(transport.get_extra_info("socket").fileno(), 0)
    except OSError:
        watch.close()
        raise
    return watch
