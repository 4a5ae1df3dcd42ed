"""Log lines on stderr, written by a thread: a slow terminal or journal must not stop the loop.

The thread gathers lines for a moment and writes them at once. Woken for each, it would take the
interpreter from the event loop each time: measured at a quarter of the CPU of a small request.
For the same reason the line of a request does not become a ``LogRecord`` on its way there.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue
import re
import sys
import threading
import time
from typing import TextIO

#: Seconds that lines are gathered for. A hard kill loses at most so much.
_GATHER = 0.1
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

#: A key of ours: its secret (see :mod:`gateway.api.key_format`).
_KEY = re.compile(r"llmgw_\w+")

#: What stands in the line of a request, see :func:`log_request`, and when it was written.
_Fields = tuple[str, str, str, int, float, str, str, str]
_Request = tuple[float, _Fields]
_Records = queue.SimpleQueue[logging.LogRecord | _Request | None]
_access = logging.getLogger("gateway.access")


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
        self._second = ("", "")  # since 1970, and as it is written

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
            lines = [
                self._request(record) if isinstance(record, tuple) else f"{self._format(record)}\n"
                for record in batch
                if record is not None
            ]
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                self._stream.write("".join(lines))
                self._stream.flush()

    def _request(self, record: _Request) -> str:
        at, fields = record
        second, _, milliseconds = f"{at:.3f}".partition(".")
        if self._second[0] != second:
            local = time.localtime(int(second))
            self._second = second, time.strftime("%Y-%m-%d %H:%M:%S", local)
        return f"{self._second[1]},{milliseconds} INFO gateway.access: {_line(fields)}\n"

    def log_request(self, fields: _Fields) -> None:
        """See :func:`log_request`."""
        self._records.put((time.time(), fields))

    def stop(self) -> None:
        """Write what there is, and end."""
        global _writer
        _writer = None
        self._records.put(None)
        self.join()


_writer: LogWriter | None = None


def log_request(*fields: *_Fields) -> None:
    """The line of one request, at level INFO.

    ``fields``: its id, method and path, the status of its answer, the seconds it took, and who
    asked for which model from where. Never its query: that may hold a key.
    """
    if not _access.isEnabledFor(logging.INFO):
        return
    if _writer is not None:
        _writer.log_request(fields)
    else:
        _access.info("%s", _line(fields))


def _line(fields: _Fields) -> str:
    request_id, method, path, status, seconds, key, model, client = fields
    if "llmgw_" in path:  # of who put a key where the route belongs
        path = _KEY.sub("llmgw_...", path)
    if " " in path or not path.isprintable():  # a stranger's line must not look like one of ours
        from urllib.parse import quote

        path = quote(path, errors="surrogateescape")
    return (
        f"{request_id} {method} {path} {status} {seconds:.3f}s key={key} model={model} "
        f"from={client}"
    )


def log_to_stderr(level: int = logging.INFO) -> LogWriter:
    """Send all log records of the process to stderr, through a thread."""
    # Where a line was logged from, and by which thread, is not printed: not looked up either
    # (Python's logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # "1 change detected"
    records: _Records = queue.SimpleQueue()
    logging.basicConfig(level=level, handlers=[_Handler(records)], force=True)
    global _writer
    _writer = LogWriter(records, sys.stderr)
    _writer.start()
    return _writer
