"""Who is asking, once that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.access.rate_limits import NO_LIMITS, KeyLimits
from gateway.scope import OF_ADMIN_KEYS, OF_ANY_KEY, OF_NOBODY, Scope


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking, and what they may do."""

    key_id: str  # for logs and accounting
    name: str
    scopes: frozenset[Scope]
    models: frozenset[str] | None = None  # None: every model
    personalities: frozenset[str] | None = None  # None: every personality
    default_personality: str | None = None
    limits: KeyLimits = NO_LIMITS
    expires: float | None = None  # seconds since 1970
    guessable: bool = False  # its key came from the old system, and may be short

    def may(self, scope: Scope) -> bool:
        """Return whether it has the right ``scope``."""
        return scope in self.scopes


#: Whoever has not said yet who they are.
NOBODY: Final = Principal("-", "nobody", OF_NOBODY, models=frozenset(), personalities=frozenset())
#: Where ``auth.enabled`` is false: who uses this machine (see :mod:`gateway.access.without_keys`),
ANONYMOUS: Final = Principal("anonymous", "anonymous", OF_ADMIN_KEYS)
#: and everybody else, web pages among them.
VISITOR: Final = Principal("anonymous", "anonymous", OF_ANY_KEY)
#: Whoever can reach the control socket: the owner of the data folder, through the command line.
LOCAL_ADMIN: Final = Principal("local", "command line", OF_ADMIN_KEYS)
#: Names of those who have no key, by the ids they are counted under.
WITHOUT_KEY: Final = {who.key_id: who.name for who in (ANONYMOUS, LOCAL_ADMIN)}
