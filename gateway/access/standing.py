"""A watch over open requests (chats, waiting requests, event streams) that ends what a key may no
longer do.

A key is looked at when its request comes. When keys change, or one of them expires, everything
that is open under a key is looked at again, and ended where that key could not ask for it any
more. It costs a request little: what may end one because of the time it takes
(:mod:`gateway.proxy.ending`) does so for this reason, too.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar, cast

from gateway.access.gate import KeyGate
from gateway.access.keys import KeyRing
from gateway.access.principal import WITHOUT_KEY, Principal
from gateway.errors import Forbidden, GatewayError, Unauthorized
from gateway.proxy.ending import Ending, Endings
from gateway.scope import OF_ANY_KEY, Scope

T = TypeVar("T")


class Permitted(Protocol):
    """A request that has been let in: its principal, and what it has been given."""

    id: str
    principal: Principal
    #: The right that its route needs.
    scope: Scope
    #: Whether it is a stream of events, which keeps showing what its key may see.
    watches: bool
    model: str | None
    personality: str | None


class Standing:
    """A watch that ends those of ``endings`` that are no longer allowed; ``gate``
    knows the keys.
    """

    def __init__(self, gate: KeyGate, endings: Endings) -> None:
        self._gate = gate
        self._endings = endings
        gate.rights_changed = self._end_what_is_forbidden

    def begin(self, permitted: Permitted) -> Ending:
        """Return what may end the request of this task from now on, for :meth:`done`.

        Raises what its rights have lost while its body came.
        """
        principal = permitted.principal
        ring = self._gate.ring
        if ring is not None and not ring.lookup.holds(principal):
            self._check(permitted)
        return self._endings.begin(principal.limits.max_seconds, permitted)

    def hold(self, permitted: Permitted) -> Ending:
        """Return what may end a stream that has no end of its own, for :meth:`done`."""
        self._check(permitted)
        return self._endings.hold(permitted)

    def watching(self, permitted: Permitted) -> AbstractContextManager[None]:
        """See :meth:`Endings.watching`."""
        self._check(permitted)
        return self._endings.watching(permitted.principal.limits.max_seconds, permitted)

    def within(
        self, permitted: Permitted, pieces: AsyncGenerator[T, None]
    ) -> AsyncGenerator[T, None]:
        """See :meth:`Endings.within`."""
        self._check(permitted)
        return self._endings.within(pieces, permitted.principal.limits.max_seconds, permitted)

    def end(self, request_id: str, error: GatewayError) -> bool:
        """End the request of that id with ``error``; return whether there is one."""
        for ending in self._endings.open:
            if ending.whose is not None and cast(Permitted, ending.whose).id == request_id:
                ending.end(error)
                return True
        return False

    def done(self, ending: Ending) -> None:
        """Forget a request that has ended by itself."""
        self._endings.done(ending)

    def _check(self, permitted: Permitted) -> None:
        ring, principal = self._gate.ring, permitted.principal
        if ring is None or ring.lookup.holds(principal):
            return
        if (error := _objection(ring, permitted, time.time())) is not None:
            raise error

    def _end_what_is_forbidden(self) -> None:
        """End what the keys, which have changed or expired, do not allow any more."""
        ring, now = self._gate.ring, time.time()
        if ring is None:
            return
        for ending in self._endings.open:
            if ending.whose is None:
                continue
            error = _objection(ring, cast(Permitted, ending.whose), now)
            if error is not None:
                ending.end(error)


def _objection(ring: KeyRing, permitted: Permitted, now: float) -> GatewayError | None:
    """Return why ``permitted`` may not go on; ``None`` if it may."""
    before = permitted.principal
    if before.key_id in WITHOUT_KEY:
        return None
    try:
        after = ring.lookup.standing(before.key_id, now)
    except Unauthorized as error:
        return error
    if after is before:
        return None
    if not after.may(permitted.scope):
        if permitted.scope in OF_ANY_KEY:
            return Forbidden("this key is for /metrics only now", code="other_key_required")
        return Forbidden("this key is no admin key any more", code="admin_key_required")
    if permitted.watches and _sight(after) != _sight(before):
        return Forbidden("the rights of this key have changed: connect again", code="key_changed")
    if (
        permitted.model is not None
        and after.models is not None
        and permitted.model not in after.models
    ):
        return Forbidden(f"this key may not use the model {permitted.model!r} any more")
    if (
        permitted.personality is not None
        and after.personalities is not None
        and permitted.personality not in after.personalities
    ):
        return Forbidden(f"this key may not use the personality {permitted.personality!r} any more")
    return None


def _sight(principal: Principal) -> tuple[object, ...]:
    """Return what decides what one may see."""
    return principal.scopes, principal.models, principal.personalities
