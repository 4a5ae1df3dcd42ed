"""Where log lines go: a stream, as text or JSON, or systemd's journal."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol, TextIO

from gateway.log_format import ACCESS, Fields, JsonFormat, harmless, request_text

#: What is logged: a record, or a request that was answered so many seconds since 1970.
Logged = logging.LogRecord | tuple[float, Fields]

#: As ``log.format`` has it.
LogFormat = Literal["text", "json", "journal"]

#: The journal's socket (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).
_JOURNAL: Final = "/run/systemd/journal/socket"
_NAME: Final = "llm-gateway"
#: The priorities of syslog(3), from the highest level on.
_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
_INFO: Final = 6
_DEBUG: Final = 7


class Output(Protocol):
    """Writes what was logged. Everything blocks, and raises ``OSError`` or ``ValueError``."""

    def write(self, logged: Sequence[Logged], texts: Sequence[str]) -> None:
        """Write all of ``logged``; ``texts``: the same, as lines for people."""

    def close(self) -> None:
        """Let go of what was opened; nothing is written after that."""


class _StreamOutput:
    """A stream that others opened."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def close(self) -> None:
        """See :class:`Output`."""


class TextOutput(_StreamOutput):
    """Lines for people."""

    def write(self, logged: Sequence[Logged], texts: Sequence[str]) -> None:
        """See :class:`Output`."""
        self._stream.write("".join(texts))
        self._stream.flush()


class PrefixedOutput(_StreamOutput):
    """Lines for a journal that reads a stream: without the time, and each with its priority, like
    ``<4>`` (sd-daemon(3)).
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._message = logging.Formatter("%(name)s: %(message)s").format

    def write(self, logged: Sequence[Logged], texts: Sequence[str]) -> None:
        """See :class:`Output`."""
        self._stream.write("".join(map(self._lines, logged)))
        self._stream.flush()

    def _lines(self, logged: Logged) -> str:
        if isinstance(logged, tuple):
            return f"<{_INFO}>{ACCESS}: {request_text(logged[1])}\n"
        prefix = f"<{_priority(logged.levelno)}>"
        return "".join(f"{prefix}{line}\n" for line in self._message(logged).split("\n"))


class JsonOutput(_StreamOutput):
    """One JSON object a line."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._format = JsonFormat()

    def write(self, logged: Sequence[Logged], texts: Sequence[str]) -> None:
        """See :class:`Output`."""
        form = self._format
        lines = (
            form.request(*one) if isinstance(one, tuple) else form.record(one) for one in logged
        )
        self._stream.write("".join(lines))
        self._stream.flush()


class JournalOutput:
    """Entries of the journal, each with the fields that :func:`entry` gives it.

    ``otherwise``: for an entry that the journal doesn't take, such as one that is too long.
    """

    def __init__(self, otherwise: Output, address: str = _JOURNAL) -> None:
        self._otherwise = otherwise
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._address = address
        self._traceback = logging.Formatter().formatException

    def write(self, logged: Sequence[Logged], texts: Sequence[str]) -> None:
        """See :class:`Output`."""
        for one, text in zip(logged, texts, strict=True):
            try:
                self._socket.sendto(entry(self._fields(one)), self._address)
            except OSError:
                self._otherwise.write([one], [text])

    def close(self) -> None:
        """See :class:`Output`."""
        self._socket.close()

    def _fields(self, logged: Logged) -> dict[str, str]:
        if isinstance(logged, tuple):
            return _request_fields(logged[1])
        message = logged.getMessage()
        if logged.exc_info:
            message += f"\n{self._traceback(logged.exc_info)}"
        fields = {"MESSAGE": message, "PRIORITY": str(_priority(logged.levelno))}
        fields["LOGGER"] = logged.name
        if request_id := getattr(logged, "request_id", None):
            fields["REQUEST_ID"] = request_id
        own = getattr(logged, "fields", {})
        return fields | {name.upper(): str(value) for name, value in own.items()}


def output_for(wanted: LogFormat) -> Output:
    """Return where this process logs to; see :func:`gateway.logs.begin_to_log`."""
    match wanted:
        case "json":
            return JsonOutput(sys.stdout)
        case "journal":
            return JournalOutput(TextOutput(sys.stderr))
        case "text":
            journal = is_the_journal(sys.stderr, os.environ)
            return PrefixedOutput(sys.stderr) if journal else TextOutput(sys.stderr)


def is_the_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether ``stream`` leads to the journal, as ``JOURNAL_STREAM`` says
    (systemd.exec(5)).
    """
    told = environ.get("JOURNAL_STREAM", "")
    with contextlib.suppress(OSError, ValueError):
        status = os.fstat(stream.fileno())
        return told == f"{status.st_dev}:{status.st_ino}"
    return False


def entry(fields: Mapping[str, str]) -> bytes:
    """Return an entry of the journal; a field with several lines is preceded by its length."""
    told = []
    for name, value in {"SYSLOG_IDENTIFIER": _NAME, **fields}.items():
        data = value.encode(errors="backslashreplace")
        if b"\n" in data:
            told.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data)
        else:
            told.append(name.encode() + b"=" + data)
    return b"\n".join(told) + b"\n"


def _request_fields(fields: Fields) -> dict[str, str]:
    request_id, method, path, status, seconds, key, model, client = fields
    told = {
        "MESSAGE": request_text(fields),
        "PRIORITY": str(_INFO),
        "LOGGER": ACCESS,
        "REQUEST_ID": request_id,
        "HTTP_METHOD": method,
        "HTTP_PATH": harmless(path),
        "HTTP_STATUS": str(status),
        "SECONDS": f"{seconds:.3f}",
    }
    optional = {"KEY_ID": key, "MODEL": model, "CLIENT": client}
    return told | {name: value for name, value in optional.items() if value != "-"}


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG)
