"""The last errors of backends, for ``GET /chat/errors``."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

#: How many errors are kept.
_KEPT: Final = 100


@dataclass(slots=True)
class ErrorLog:
    """The last backend errors, newest last. Messages hold no prompt and no key."""

    entries: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def add(self, message: str, *, code: str, model: str | None, request_id: str | None) -> None:
        """Remember an error, with the time of now."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.entries.append(
            {
                "time": now,
                "message": message,
                "code": code,
                "model": model,
                "request_id": request_id,
            }
        )
