"""Log lines on stderr, written by a thread: a slow terminal or journal must not stop the loop.

The thread gathers lines for a moment and writes them at once. Woken for each, it would take the
interpreter from the event loop each time: measured at a quarter of the CPU of a small request.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue
import sys
import threading
import time
from typing import TextIO

#: Seconds that lines are gathered for. A hard kill loses at most so much.
_GATHER = 0.1
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_Records = queue.SimpleQueue[logging.LogRecord | None]


class _Handler(logging.handlers.QueueHandler):
    """Hands records over as they are: they are formatted in the writer's thread."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


class LogWriter(threading.Thread):
    """The thread that writes. Made by :func:`log_to_stderr`, ended by :meth:`stop`."""

    def __init__(self, records: _Records, stream: TextIO) -> None:
        super().__init__(name="log", daemon=True)
        self._records = records
        self._format = logging.Formatter(_FORMAT).format
        self._stream = stream

    def run(self) -> None:
        """Write until :meth:`stop`."""
        ended = False
        while not ended:
            batch = [self._records.get()]
            if batch[0] is not None:
                time.sleep(_GATHER)
            with contextlib.suppress(queue.Empty):
                while True:
                    batch.append(self._records.get_nowait())
            ended = None in batch
            lines = [f"{self._format(record)}\n" for record in batch if record is not None]
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                self._stream.write("".join(lines))
                self._stream.flush()

    def stop(self) -> None:
        """Write what there is, and end."""
        self._records.put(None)
        self.join()


def log_to_stderr(level: int = logging.INFO) -> LogWriter:
    """Send all log records of the process to stderr, through a thread."""
    # Where a line was logged from, and by which thread, is not printed: not looked up either
    # (Python's logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    records: _Records = queue.SimpleQueue()
    logging.basicConfig(level=level, handlers=[_Handler(records)], force=True)
    writer = LogWriter(records, sys.stderr)
    writer.start()
    return writer
