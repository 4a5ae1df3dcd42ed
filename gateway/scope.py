"""Rights: which one a route needs, and which ones a principal has.

A scope is declared here, with those who have it, and named by the routes that need it. The gate,
requests under way and the OpenAPI document know none of them by name but :attr:`Scope.PUBLIC`.
"""

from __future__ import annotations

import enum
from typing import Final


class Scope(enum.Enum):
    """A right, with what has to be shown for it."""

    PUBLIC = "public", "no key"
    CHAT = "chat", "any key"
    OLLAMA = "ollama", "any key, or an address in auth.ollama_open_to"
    METRICS = "metrics", "a key for metrics"
    ADMIN = "admin", "an admin key"

    #: What a client needs for it, in words for messages and the OpenAPI document.
    asks_for: str

    def __new__(cls, name: str, asks_for: str) -> Scope:
        """``name``: the value, as ``x-scope`` of the OpenAPI document has it."""
        scope = object.__new__(cls)
        scope._value_ = name
        scope.asks_for = asks_for
        return scope

    # Members are compared by identity, and looked up on every request: an enumeration's own hash
    # is a function in Python.
    __hash__ = object.__hash__


#: The scopes of a principal without a key,
OF_NOBODY: Final = frozenset({Scope.PUBLIC})
#: of every key but one for metrics (``keys create --metrics``), which may do nothing else,
OF_ANY_KEY: Final = OF_NOBODY | {Scope.CHAT, Scope.OLLAMA}
OF_METRICS_KEYS: Final = OF_NOBODY | {Scope.METRICS}
#: of a program without a key in a network that Ollama's API is open to,
OF_OLLAMA: Final = OF_NOBODY | {Scope.OLLAMA}
#: and of admin keys (``keys create --admin``), which may do everything.
OF_ADMIN_KEYS: Final = frozenset(Scope)


def scopes_of_key(*, admin: bool, metrics: bool = False) -> frozenset[Scope]:
    """Return the scopes of a key; ``admin``, ``metrics``: the fields of those names."""
    if admin:
        return OF_ADMIN_KEYS
    return OF_METRICS_KEYS if metrics else OF_ANY_KEY
