"""The format of log lines: text for people, or JSON for programs that collect logs.

Lines are made in the thread that writes them, see :mod:`gateway.logs`. The query of a request is
never logged: it may contain a key.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Protocol

from gateway.path_secrets import without_secrets

#: The fields of a request's line: its id, method and path, the status of its answer, the seconds it
#: took, its key, its model, and its client's address.
Fields = tuple[str, str, str, int, float, str, str, str]

ACCESS = "gateway.access"
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Format(Protocol):
    """Makes lines, each with its line end."""

    def record(self, record: logging.LogRecord) -> str:
        """Return the line of what was logged; in text, several lines if it has a traceback."""

    def request(self, at: float, fields: Fields) -> str:
        """Return the line of a request that was answered ``at`` seconds since 1970."""


class TextFormat:
    """``2026-01-31 12:00:00,123 INFO gateway.server: listening on ...``, in local time."""

    def __init__(self) -> None:
        self._format = logging.Formatter(_FORMAT).format
        self._second = ("", "")  # since 1970, and as it is written

    def record(self, record: logging.LogRecord) -> str:
        """See :class:`Format`."""
        return f"{self._format(record)}\n"

    def request(self, at: float, fields: Fields) -> str:
        """See :class:`Format`."""
        second, _, milliseconds = f"{at:.3f}".partition(".")
        if self._second[0] != second:
            local = time.localtime(int(second))
            self._second = second, time.strftime("%Y-%m-%d %H:%M:%S", local)
        return f"{self._second[1]},{milliseconds} INFO {ACCESS}: {request_text(fields)}\n"


class JsonFormat:
    """One object a line: ``ts`` (RFC 3339, UTC), ``level``, ``logger``, ``message``.

    ``request_id`` if it was logged for a request, ``exception`` if there was one, and the record's
    own ``fields``; for an answered request also ``method``, ``path``, ``status``, ``seconds``,
    ``key`` (its id), ``model`` and ``client``, as far as there is one.
    """

    def __init__(self) -> None:
        self._traceback = logging.Formatter().formatException

    def record(self, record: logging.LogRecord) -> str:
        """See :class:`Format`."""
        told = _beginning(record.created, record.levelname, record.name, record.getMessage())
        if request_id := getattr(record, "request_id", None):
            told["request_id"] = request_id
        told |= getattr(record, "fields", {})
        if record.exc_info:
            told["exception"] = self._traceback(record.exc_info)
        return _line(told)

    def request(self, at: float, fields: Fields) -> str:
        """See :class:`Format`."""
        request_id, method, path, status, seconds, key, model, client = fields
        path = harmless(path)
        told = _beginning(at, "INFO", ACCESS, f"{method} {path} {status}")
        told |= {"request_id": request_id, "method": method, "path": path, "status": status}
        told["seconds"] = round(seconds, 3)
        told |= {
            name: value
            for name, value in (("key", key), ("model", model), ("client", client))
            if value != "-"
        }
        return _line(told)


def request_text(fields: Fields) -> str:
    """Return the line of a request for people."""
    request_id, method, path, status, seconds, key, model, client = fields
    return (
        f"{request_id} {method} {harmless(path)} {status} {seconds:.3f}s key={key} model={model} "
        f"from={client}"
    )


def harmless(path: str) -> str:
    """Return ``path`` without a key, and without anything that could look like a line of ours."""
    path = without_secrets(path)
    if " " in path or not path.isprintable():  # a stranger's line must not look like one of ours
        from urllib.parse import quote

        path = quote(path, errors="surrogateescape")
    return path


def _beginning(at: float, level: str, logger: str, message: str) -> dict[str, object]:
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    ts = moment.replace("+00:00", "Z")
    return {"ts": ts, "level": level.lower(), "logger": logger, "message": message}


def _line(told: dict[str, object]) -> str:
    import json  # who writes text has no use for it

    # ASCII, so that nothing in it, surrogates of odd names included, is anything but one line.
    return f"{json.dumps(told)}\n"
