"""What becomes known of one request while it is answered."""

from __future__ import annotations

import itertools
import secrets
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.access.principal import NOBODY, Principal
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.access.rate_limits import Grant
    from gateway.api.parts import Parts
    from gateway.api.room import Place

_PREFIX = f"req_{secrets.token_hex(4)}"
#: Behind the first digit of each, in hexadecimal, are eight: at a fifth of what formatting costs.
_numbers = itertools.count(0x1_0000_0001)


def new_id() -> str:
    """The id of a request, which its answer and its line in the log carry."""
    return _PREFIX + hex(next(_numbers))[3:]


class Visit:
    """One request: its id, whose it is, and where it went.

    ``named``: the personality that its headers name (``X-Personality``).
    """

    __slots__ = (
        "grant",
        "id",
        "model",
        "named",
        "needs_admin",
        "parts",
        "personality",
        "place",
        "principal",
        "watches",
    )

    def __init__(self, parts: Parts, named: str | None) -> None:
        self.parts = parts
        self.id = new_id()
        self.named = named
        self.principal: Principal = NOBODY
        #: Whether its route asks for an admin key.
        self.needs_admin = False
        #: Whether it goes on to show what its key may see.
        self.watches = False
        #: The model it went to, for the answer's header and the log, and its personality.
        self.model: str | None = None
        self.personality: str | None = None
        #: Only of a key with limits: what the answer says of them.
        self.grant: Grant | None = None
        #: Only of a large body: its room in memory, until the request is answered.
        self.place: Place | None = None

    def tell(self, error: GatewayError) -> GatewayError:
        """``error`` as whoever asks may see it."""
        return error.told(admin=self.principal.admin, request_id=self.id)


#: That of a request that aiohttp serves; one at the front door is its own.
VISIT = web.RequestKey("visit", Visit)
