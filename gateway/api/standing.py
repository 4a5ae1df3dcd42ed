"""Whether what is open is still allowed: chats under way, who waits in a queue, streams of events.

A key is looked at when its request comes. When keys change, or one of them expires, everything
that is open under a key is looked at again, and ended where that key could not ask for it any
more. It costs a request little: what may end one because of the time it takes
(:mod:`gateway.proxy.ending`) does so for this reason, too.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

from gateway.access.principal import ANONYMOUS, LOCAL_ADMIN, VISITOR, Principal
from gateway.api.visit import Visit
from gateway.errors import Forbidden, GatewayError, Unauthorized
from gateway.proxy.ending import Ending, Endings

if TYPE_CHECKING:
    from gateway.access.keys import KeyRing
    from gateway.api.context import Door

T = TypeVar("T")


class Standing:
    """Ends among ``endings`` what is not allowed any more; ``door`` knows the keys."""

    def __init__(self, door: Door, endings: Endings) -> None:
        self._door = door
        self._endings = endings
        door.rights_changed = self._look

    def begin(self, visit: Visit) -> Ending:
        """What may end the request of this task from now on, to be given to :meth:`done`.

        Raises what has happened to its rights while its body came.
        """
        principal = visit.principal
        ring = self._door.ring
        if ring is not None and not ring.holds(principal):
            self._check(visit)
        return self._endings.begin(principal.limits.max_seconds, visit)

    def hold(self, visit: Visit) -> Ending:
        """The same for a stream that has no end of its own."""
        self._check(visit)
        return self._endings.hold(visit)

    def watching(self, visit: Visit) -> AbstractContextManager[None]:
        """See :meth:`Endings.watching`."""
        self._check(visit)
        return self._endings.watching(visit.principal.limits.max_seconds, visit)

    def within(self, visit: Visit, pieces: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """See :meth:`Endings.within`."""
        self._check(visit)
        return self._endings.within(pieces, visit.principal.limits.max_seconds, visit)

    def end(self, request_id: str, error: GatewayError) -> bool:
        """End the request of that id with ``error``; whether there is one."""
        for ending in self._endings.open:
            visit = ending.whose
            if isinstance(visit, Visit) and visit.id == request_id:
                ending.end(error)
                return True
        return False

    def done(self, ending: Ending) -> None:
        """It has ended by itself."""
        self._endings.done(ending)

    def _check(self, visit: Visit) -> None:
        ring, principal = self._door.ring, visit.principal
        if ring is None or ring.holds(principal):
            return
        if (error := _objection(ring, visit, time.time())) is not None:
            raise error

    def _look(self) -> None:
        """Keys have changed, or one has expired."""
        ring, now = self._door.ring, time.time()
        if ring is None:
            return
        for ending in self._endings.open:
            visit = ending.whose
            if isinstance(visit, Visit) and (error := _objection(ring, visit, now)) is not None:
                ending.end(error)


def _objection(ring: KeyRing, visit: Visit, now: float) -> GatewayError | None:
    """Why ``visit`` may not go on; None if it may."""
    before = visit.principal
    if before is LOCAL_ADMIN or before is ANONYMOUS or before is VISITOR:
        return None  # they have no key
    try:
        after = ring.standing(before.key_id, now)
    except Unauthorized as error:
        return error
    if after is before:
        return None
    if visit.needs_admin and not after.admin:
        return Forbidden("this key is no admin key any more", code="admin_key_required")
    if visit.watches and _sight(after) != _sight(before):
        return Forbidden("the rights of this key have changed: connect again", code="key_changed")
    if visit.model is not None and after.models is not None and visit.model not in after.models:
        return Forbidden(f"this key may not use the model {visit.model!r} any more")
    if (
        visit.personality is not None
        and after.personalities is not None
        and visit.personality not in after.personalities
    ):
        return Forbidden(f"this key may not use the personality {visit.personality!r} any more")
    return None


def _sight(principal: Principal) -> tuple[object, ...]:
    """What decides what one may see."""
    return principal.admin, principal.models, principal.personalities
