"""Asks a starting llama-server for its health: GET /health (llama.cpp's README).

200 means that it is ready, 503 that it still loads its model, no answer that it doesn't listen
yet. A proxy or a script before it may say 502 or 504 meanwhile. Anything else, 404 say, or what is
no HTTP at all, won't become another answer by waiting for it.
"""

from __future__ import annotations

import time

from gateway.errors import GatewayError
from gateway.upstream import Fetched, ProtocolError, UpstreamPool, UpstreamRequest

_LOADING = 503
_QUOTED = 200  # characters of an answer


class Health:
    """A probe of one starting llama-server. ``timeout``: seconds that an answer may take."""

    def __init__(self, pool: UpstreamPool, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout
        self._refuses_since: float | None = None
        #: Its last answer in words, if that is worth telling.
        self.said: str | None = None

    @property
    def refuses_for(self) -> float:
        """Seconds for which it has given answers that no loading llama-server gives."""
        return 0.0 if self._refuses_since is None else time.monotonic() - self._refuses_since

    async def is_ready(self) -> bool:
        """Ask once."""
        self.said = None
        refuses = False
        try:
            answer = await self._pool.fetch(
                UpstreamRequest("GET", "/health"), timeout=self._timeout
            )
        except ProtocolError as error:
            refuses = True
            self.said = f"answers GET /health with what is not HTTP/1.1 ({error.message})"
        except GatewayError:
            pass  # it doesn't listen, or not yet
        else:
            if answer.status == 200:
                return True
            refuses = answer.status < 500
            if answer.status != _LOADING:
                self.said = f"answers {answer.status} to GET /health{quoted(answer)}, not 200"
        if not refuses:
            self._refuses_since = None
        elif self._refuses_since is None:
            self._refuses_since = time.monotonic()
        return False


def quoted(answer: Fetched) -> str:
    """Return the beginning of what an answer says, as something to put behind its status."""
    text = " ".join(answer.body[: 4 * _QUOTED].decode("utf-8", "replace").split())
    if len(text) > _QUOTED:
        text = text[:_QUOTED] + "..."
    text = "".join(character if character.isprintable() else "?" for character in text)
    return f" ({text})" if text else ""
