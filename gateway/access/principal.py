"""The principal of a request: who makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.access.rate_limits import NO_LIMITS, KeyLimits
from gateway.scope import (
    OF_ADMIN_KEYS,
    OF_ANY_KEY,
    OF_METRICS_KEYS,
    OF_NOBODY,
    OF_OLLAMA,
    Scope,
)


@dataclass(frozen=True, slots=True)
class Principal:
    """The one who makes a request, and what they may do."""

    key_id: str  # for logs and accounting
    name: str
    scopes: frozenset[Scope]
    models: frozenset[str] | None = None  # None: every model
    personalities: frozenset[str] | None = None  # None: every personality
    default_personality: str | None = None
    limits: KeyLimits = NO_LIMITS
    expires: float | None = None  # seconds since 1970
    guessable: bool = False  # its key came from the old system, and may be short
    narrow: bool = False  # it lacks rights that every other key has

    def may(self, scope: Scope) -> bool:
        """Return whether it has the right ``scope``."""
        return scope in self.scopes


#: The principal before authentication.
NOBODY: Final = Principal("-", "nobody", OF_NOBODY, models=frozenset(), personalities=frozenset())
#: The user of this machine where ``auth.enabled`` is false (see
#: :mod:`gateway.access.without_keys`),
ANONYMOUS: Final = Principal("anonymous", "anonymous", OF_ADMIN_KEYS)
#: and everybody else there, including web pages.
VISITOR: Final = Principal("anonymous", "anonymous", OF_ANY_KEY)
#: The owner of the data folder, who alone can reach the control socket, through the command line.
LOCAL_ADMIN: Final = Principal("local", "command line", OF_ADMIN_KEYS)
#: A program of this machine that reads metrics without a key (``metrics.without_key``).
SCRAPER: Final = Principal(
    "local", "metrics", OF_METRICS_KEYS, models=frozenset(), personalities=frozenset()
)
#: A program that speaks Ollama's API without a key, from a network that this is open to
#: (``auth.ollama_open_to``). Neither its id nor its name can be those of a key.
OLLAMA: Final = Principal("ollama", "ollama", OF_OLLAMA)
#: The names of principals without a key, by the ids under which they are counted.
WITHOUT_KEY: Final = {who.key_id: who.name for who in (ANONYMOUS, LOCAL_ADMIN, OLLAMA)}
