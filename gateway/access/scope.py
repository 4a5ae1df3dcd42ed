"""What a route asks of who calls it."""

from __future__ import annotations

import enum
from typing import Final


class Scope(enum.Enum):
    """Public routes need no key, those of chats any valid one, administration an admin key."""

    PUBLIC = "public"
    CHAT = "chat"
    ADMIN = "admin"  # a key made with --admin


#: Asked on every request; in an enumeration they have to be looked for.
PUBLIC: Final = Scope.PUBLIC
ADMIN: Final = Scope.ADMIN
