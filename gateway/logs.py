"""Log lines, written by a thread: a slow terminal or journal must not stop the loop.

The thread gathers lines for a moment and writes them together. If it were woken for each, it would
take the interpreter from the event loop each time: measured at a quarter of the CPU of a small
request. For the same reason the line of a request does not become a ``LogRecord`` on its way there.

Lines that strangers cause are limited (:mod:`gateway.log_bound`) before they wait to be written: a
flood of them takes no memory, and nobody's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import queue
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from gateway.log_bound import EVENTS, REQUESTS, TELL_EVERY, Allowance, is_a_clients, is_a_strangers
from gateway.log_format import ACCESS, Fields, TextFormat, request_text
from gateway.log_output import LogFormat, Logged, Output, output_for
from gateway.log_tail import LogTail

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

#: Seconds for which lines are gathered. A hard kill loses the lines of that time at most.
_GATHER = 0.1

#: In the queue, besides lines: lines were left out, which is to be logged; ``None``: the end.
_LEFT_OUT = "left out"
_Records = queue.SimpleQueue[Logged | str | None]
_log = logging.getLogger(__name__)
_all: Final = logging.getLogger("gateway")
_access = logging.getLogger(ACCESS)
_unraisable = logging.getLogger("gateway.unraisable")


class LogHandler(logging.handlers.QueueHandler):
    """A handler that hands records on unformatted: the writer's thread formats them."""

    def __init__(self, writer: LogWriter, records: _Records) -> None:
        super().__init__(records)
        self.addFilter(writer.lets_through)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        if (
            request_ids is not None
            and not hasattr(record, "request_id")
            and (task := _current_task()) is not None
        ):
            record.request_id = request_ids.get(task)
        return record


#: Task -> the id of its request, if lines have it as a field: in JSON, and in the journal.
request_ids: weakref.WeakKeyDictionary[asyncio.Task[Any], str] | None = None


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return None


class LogWriter(threading.Thread):
    """The thread that writes. Made by :func:`begin_to_log`, ended by :meth:`stop`."""

    def __init__(
        self,
        records: _Records,
        output: Output,
        *,
        tell_every: float = TELL_EVERY,
    ) -> None:
        super().__init__(name="log", daemon=True)
        self._records = records
        self._output = output
        self._format = TextFormat()
        #: The newest lines, as text for people, wherever they go.
        self.tail = LogTail()
        self._requests = Allowance(*REQUESTS)
        self._events = Allowance(*EVENTS)
        self._tell_every = tell_every
        self._to_tell = False  # something was left out, and the thread knows, or will
        self._tell_at: float | None = None  # by time.monotonic()

    def run(self) -> None:
        """Write until :meth:`stop`."""
        ended = False
        while not ended:
            batch: list[Logged | str | None] = []
            with contextlib.suppress(queue.Empty):  # it is time to tell
                batch.append(self._records.get(timeout=self._until_telling()))
                if batch[0] is not None:
                    time.sleep(_GATHER)
                while True:
                    batch.append(self._records.get_nowait())
            ended = None in batch
            if _LEFT_OUT in batch and self._tell_at is None:
                self._tell_at = time.monotonic() + self._tell_every
            records = [one for one in batch if one is not None and not isinstance(one, str)]
            if self._tell_at is not None and (ended or time.monotonic() >= self._tell_at):
                records += self._left_out()
            lines = [_text(record, self._format) for record in records]
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                self._output.write(records, lines)
            self.tail.add(zip(map(_level, records), lines, strict=True))

    def _until_telling(self) -> float | None:
        return None if self._tell_at is None else max(0.0, self._tell_at - time.monotonic())

    def _left_out(self) -> list[logging.LogRecord]:
        """Return a report of how many lines were left out since the last time."""
        self._tell_at = None
        self._to_tell = False  # before they are counted: one that comes meanwhile notes it again
        told = (
            (self._requests.untold(), "of requests without a valid key"),
            (self._events.untold(), "of what clients did to their connections"),
        )
        records = []
        for number, what in told:
            if number:
                text = f"left out {number} more lines {what}, in the last {self._tell_every:g} s"
                record = logging.LogRecord("gateway.logs", logging.WARNING, "", 0, text, None, None)
                records.append(record)
        return records

    def lets_through(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` is written, or is one too many of those that clients cause."""
        return not is_a_clients(record) or self._events.take() or self._leave_out()

    def _leave_out(self) -> bool:
        if not self._to_tell:
            self._to_tell = True
            self._records.put(_LEFT_OUT)
        return False

    def log_request(self, fields: Fields) -> None:
        """See :func:`log_request`."""
        if is_a_strangers(fields[5], fields[3]) and not self._requests.take():
            self._leave_out()
            return
        self._records.put((time.time(), fields))

    def stop(self) -> None:
        """Write what there is, and end."""
        global _writer
        _writer = None
        self._records.put(None)
        self.join()
        self._output.close()


def _text(record: Logged, form: TextFormat) -> str:
    return form.request(*record) if isinstance(record, tuple) else form.record(record)


def _level(record: Logged) -> int:
    return logging.INFO if isinstance(record, tuple) else record.levelno


_writer: LogWriter | None = None


def log_tail() -> LogTail:
    """Return the newest lines; none if no thread of ours writes the log."""
    return LogTail() if _writer is None else _writer.tail


def log_request(*fields: *Fields) -> None:
    """Log the line of one request, at level INFO.

    ``fields``: its id, method and path, the status of its answer, the seconds it took, and who
    asked for which model from where. Never its query: that may contain a key.
    """
    if not _access.isEnabledFor(logging.INFO):
        return
    if _writer is not None:
        _writer.log_request(fields)
    else:
        _access.info("%s", request_text(fields))


def begin_to_log(level: str = "info", format_: LogFormat = "text") -> LogWriter:
    """Send all log records of the process away, through a thread.

    ``format_``: ``json`` goes to stdout, ``journal`` to the journal, and ``text`` to stderr; to one
    that leads to the journal without the time, which the journal has, but with priorities.
    ``level``: the least that is written of the gateway's own records, like ``info``. Libraries are
    heard only if something is wrong.
    """
    # Where a line was logged from, and by which thread, is not printed: not looked up either
    # (Python's logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    records: _Records = queue.SimpleQueue()
    global _writer, request_ids
    request_ids = None if format_ == "text" else weakref.WeakKeyDictionary()
    _writer = LogWriter(records, output_for(format_))
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = LogHandler(_writer, records)
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    _all.setLevel(number)
    sys.unraisablehook = _log_unraisable
    _writer.start()
    return _writer


def switch_debugging() -> None:
    """Log everything from now on; the next time, what was logged before, and so on."""
    global _level_before
    if _level_before is None:
        _level_before = _all.level
        _all.setLevel(logging.DEBUG)
        _log.info("logging everything: SIGUSR1 ends that")
    else:
        _log.info("logging as configured again")
        _all.setLevel(_level_before)
        _level_before = None


#: The level to return to while everything is logged.
_level_before: int | None = None


def _log_unraisable(what: UnraisableHookArgs) -> None:
    """Log what was raised where nobody could catch it, instead of printing it from the loop.

    Python's ``ssl`` takes a server name in a ClientHello for ASCII, whatever bytes a stranger
    sends, and raises here what it finds (``_ssl.c``, ``_servername_callback``); the handshake fails
    as it should.
    """
    error, where = what.exc_value, what.object
    # The name is the object up to Python 3.13, and part of the message from 3.14 on.
    in_callback = isinstance(where, bytes) or "ssl servername callback" in (what.err_msg or "")
    if isinstance(error, UnicodeDecodeError) and in_callback:
        _unraisable.debug("a client asked for a server name that is no ASCII")
        return
    name = getattr(where, "__qualname__", type(where).__qualname__)
    message = what.err_msg or "an exception was ignored"
    _unraisable.error("%s: %s", message, name, exc_info=error)
