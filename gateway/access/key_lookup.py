"""The lookup of keys in memory, which every request does without waiting.

Only digests are looked up, so how long it takes tells nothing of how near a guess was.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.access.key_format import MAX_KEY_CHARS, PREFIX, hash_key, looks_like_ours
from gateway.access.principal import Principal
from gateway.access.rate_limits import NO_LIMITS, KeyLimits
from gateway.errors import Unauthorized
from gateway.scope import OF_NOBODY, scopes_of_key

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.access.store
    from gateway.access.store import KeyRecord

#: Seconds between two looks at the wall clock.
CLOCK_EVERY: Final = 30.0


class UnknownKey(Unauthorized):
    """401: there is no such key, and never was: a typing error, or a guess."""


@dataclass(frozen=True, slots=True)
class _KnownKey:
    digest: bytes
    principal: Principal
    revoked: bool


# Compared with where no key has the digest, so that a miss does the same work as a hit.
_NO_KEY: Final = _KnownKey(bytes(32), Principal("nobody", "nobody", OF_NOBODY), revoked=True)


class KeyLookup:
    """All keys by their digests and ids. A few microseconds a request."""

    def __init__(self) -> None:
        self._by_id: dict[str, _KnownKey] = {}
        self._by_digest: dict[bytes, _KnownKey] = {}
        self._seen: dict[str, _KnownKey] = {}  # keys that were found, so that each is hashed once
        #: Called when a key may have lost a right: it was changed, or has expired.
        self.rights_changed: Callable[[], None] = lambda: None
        self._expiry: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Wait for no key to expire any more."""
        if self._expiry is not None:
            self._expiry.cancel()

    def install(self, records: Iterable[KeyRecord]) -> None:
        """Make ``records`` the keys, in one step as seen by requests.

        :attr:`rights_changed` is for the caller to call, once it has them as well.
        """
        before = self._by_id
        self._by_id = {record.id: _known(record) for record in records}
        for key_id, known in self._by_id.items():
            if (old := before.get(key_id)) is not None and old == known:
                self._by_id[key_id] = old  # so that who holds it sees that nothing has changed
        self._by_digest = {known.digest: known for known in self._by_id.values()}
        self._seen = {}
        self._await_expiry()

    def find(self, presented: str, now: float) -> Principal:
        """Return whom ``presented`` belongs to, at ``now`` (seconds since 1970).

        Raises :class:`Unauthorized`, of an unknown key :class:`UnknownKey`, whose text never holds
        the key.
        """
        known = self._seen.get(presented)
        if known is None:
            if len(presented) > MAX_KEY_CHARS:
                raise UnknownKey("this is not an API key: it is too long")
            digest = hash_key(presented)
            known = self._by_digest.get(digest, _NO_KEY)
            if not hmac.compare_digest(known.digest, digest):
                raise _unknown(presented)
            self._seen[presented] = known
        if known.revoked or known.principal.expires is not None:
            _check(known, now)
        return known.principal

    def holds(self, principal: Principal) -> bool:
        """Return whether nothing has changed since :meth:`find` told of it, but for the time."""
        known = self._by_id.get(principal.key_id)
        return known is not None and known.principal is principal and not known.revoked

    def is_known(self, key_id: str) -> bool:
        """Return whether there is such a key that has not been revoked; it may have expired."""
        known = self._by_id.get(key_id)
        return known is not None and not known.revoked

    def standing(self, key_id: str, now: float) -> Principal:
        """Return what a key that was found before may do at ``now``.

        Raises :class:`Unauthorized`.
        """
        known = self._by_id.get(key_id, _NO_KEY)
        _check(known, now)
        return known.principal

    def _await_expiry(self) -> None:
        """Tell of the next key that expires; one timer for all of them."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        now = time.time()
        times = [
            expires
            for known in self._by_id.values()
            if (expires := known.principal.expires) is not None and expires > now
        ]
        if times:
            # The loop's clock isn't the wall's: that may be set, and goes on in a suspend.
            pause = min(min(times) - now, CLOCK_EVERY)
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(pause, self._tell_of_expiry, min(times))

    def _tell_of_expiry(self, expires: float) -> None:
        self._expiry = None
        if time.time() >= expires:
            self.rights_changed()
        self._await_expiry()


def _check(known: _KnownKey, now: float) -> None:
    if known.revoked:
        raise Unauthorized("this API key has been revoked", code="api_key_revoked")
    expires = known.principal.expires
    if expires is not None and now >= expires:
        raise Unauthorized("this API key has expired", code="api_key_expired")


def _unknown(presented: str) -> UnknownKey:
    # The checksum is no secret, so this helps only who copied half a key.
    if presented.startswith(PREFIX) and not looks_like_ours(presented):
        return UnknownKey("this API key is incomplete, or has a typing error")
    return UnknownKey(
        "this API key is not known here: `llm-gateway keys list` shows which there are, and "
        "`llm-gateway keys create NAME` makes one"
    )


def _known(record: KeyRecord) -> _KnownKey:
    principal = Principal(
        key_id=record.id,
        name=record.name,
        scopes=scopes_of_key(admin=record.admin, metrics=record.metrics),
        models=None if record.models is None else frozenset(record.models),
        personalities=None if record.personalities is None else frozenset(record.personalities),
        default_personality=record.default_personality,
        limits=KeyLimits(**record.limits) if record.limits else NO_LIMITS,
        expires=None if record.expires is None else record.expires.timestamp(),
        guessable=record.imported,
        narrow=record.metrics and not record.admin,
    )
    return _KnownKey(bytes.fromhex(record.hash), principal, revoked=record.revoked is not None)
