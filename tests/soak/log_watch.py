"""The log of a gateway, line by line as it is written: what is bad in it, and what is secret."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import IO, Final

#: Lines of the level ERROR that faults account for; all others are breaches.
_EXPECTED: Final = re.compile(
    r"""model\ \w+:\ .*(was\ killed|has\ not\ answered|was\ stopped)
      | a\ stream\ broke:
      | (certificate\ refused,\ the\ old\ one|the\ certificate\ in\ use)\ stays
      | models.json\ is\ broken:\ the\ last\ good\ one\ stays
      | cannot\ be\ written,\ trying\ again:\ the\ (gateway's\ )?database
    """,
    re.VERBOSE,
)
_BAD: Final = re.compile(r"^Traceback|\s(?:ERROR|CRITICAL)\s")
_DIGITS: Final = re.compile(r"\d+")
_KEY: Final = re.compile(r"llmgw_\w+")


class LogWatch:
    """Reads a gateway's stderr in a thread, and reports what shouldn't be there.

    ``secrets``: words that must not be in it.
    """

    def __init__(self, stream: IO[str], report: Callable[[str, str], None], *secrets: str) -> None:
        self._report = report
        self._secrets = secrets
        #: The lines of level WARNING and above, without their numbers.
        self.told: Counter[str] = Counter()
        self.last: list[str] = []
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Return when all has been read: the process has ended."""
        self._thread.join(10)

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._look_at(line)

    def _look_at(self, line: str) -> None:
        self.last = [*self.last[-40:], line]
        if any(secret in line for secret in self._secrets) or _KEY.search(line):
            self._report("a key or a prompt in the log", line)
        if _BAD.search(line) and not _EXPECTED.search(line):
            self._report(f"in the log: {_kind_of(line)}", "".join(self.last))
        if " WARNING " in line or " ERROR " in line:
            self.told[_kind_of(line)] += 1


def _kind_of(line: str) -> str:
    """A line without its time and its numbers."""
    return _DIGITS.sub("#", line[23:]).strip()[:120]
