"""The requests at one llama-server, and which of them is to blame when it hangs.

llama-server doesn't say what keeps it. What is known here: a request that was sent when it already
hung has not done it, nor has one whose answer was coming; and what makes it compute without end is
what holds its sampling to something (a grammar, a schema), not a question in plain words. A client
may have left since: then nobody who waits is to blame.

Nothing of a request is looked at before something has gone wrong.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import orjson

from gateway.errors import GatewayError

#: How many requests of clients that have left are remembered, until the server is known to have
#: dropped them; and the size, in bytes, up to which their bodies are kept.
_LEFT = 32
_KEPT = 64 * 1024
#: Estimated bytes of text per token: fewer than in any language.
_BYTES = 3
#: Fields that constrain an answer -> how likely each makes it endless. ``format`` stands in
#: ``text`` and ``output_config`` of the newer APIs.
_STRANGE: Mapping[str, int] = {
    "grammar": 5,
    "json_schema": 4,
    "response_format": 3,
    "format": 3,
    "tools": 2,
    "dry_sequence_breakers": 1,
    "logit_bias": 1,
    "stop": 1,
}
#: Fields of at least this weight are never read as a prompt.
_NO_PROMPT = 3
#: The size, in bytes, from which the last of these fields are suspicious.
_MANY = 1024
#: Objects of a body in which such a field may stand, besides its top level.
_INSIDE = ("text", "output_config", "params")


class Exchanged(Protocol):
    """A view of an exchange that tells whether a byte of its answer has come."""

    @property
    def answered(self) -> bool: ...


class Trait(NamedTuple):
    """A suspicious field of a request: its name, its weight, and its size in bytes."""

    weight: int
    size: int
    field: str


class Flight:
    """A request, from its sending until its answer is complete or nobody waits for it.

    When its llama-server hung and was ended: ``blamed`` is what its client is to be told where this
    one has done it, and ``cleared`` says that it certainly hasn't, so it can be sent again. Of the
    others it isn't known.
    """

    __slots__ = (
        "_counted",
        "began",
        "blamed",
        "body",
        "cleared",
        "exchange",
        "launched",
        "left",
        "request",
        "slot",
        "target",
        "tokens",
    )

    def __init__(
        self, target: str, body: object, slot: int | None = None, request: str | None = None
    ) -> None:
        self.target = target
        #: The slot that it names, if it names one.
        self.slot = slot
        #: The id of the client's request, ``""`` if nobody's; ``None``: it takes no slot.
        self.request = request
        #: Whether llama-server is known to have begun with it.
        self.launched = False
        self.body: bytes | None
        #: The estimated number of tokens of its prompt.
        self.tokens: int
        if isinstance(body, bytes):
            self.body = body
            self.tokens = len(body) // _BYTES
        else:
            self.body = None
            self.tokens = 0
        self._counted = False
        self.began = time.monotonic()
        self.exchange: Exchanged | None = None
        #: When its client left before the answer was complete.
        self.left: float | None = None
        self.blamed: GatewayError | None = None
        self.cleared = False

    @property
    def answered(self) -> bool:
        """Whether the first byte of its answer has come."""
        return self.exchange is not None and self.exchange.answered

    def count(self) -> None:
        """Make :attr:`tokens` exact by leaving out what is no prompt. Reads the body: not for the
        event loop.
        """
        if not self._counted:
            self._counted = True
            shapes = sum(trait.size for trait in self._traits() if trait.weight >= _NO_PROMPT)
            self.tokens = max(self.tokens - shapes // _BYTES, 0)

    def trait(self) -> Trait | None:
        """Return the strangest thing about it. Reads its body: not on the event loop."""
        return max(self._traits(), default=None)

    def _traits(self) -> Iterable[Trait]:
        try:
            parsed = orjson.loads(self.body or b"")
        except ValueError:
            return ()
        return _traits(parsed) if isinstance(parsed, dict) else ()


class Flights:
    """The requests that are at one llama-server. ``remember``: also those whose
    clients have left.
    """

    __slots__ = ("_left", "_open", "own")

    def __init__(self, *, remember: bool = True) -> None:
        #: The slots in which the gateway computes something itself, without a flight.
        self.own: set[int] = set()
        self._open: set[Flight] = set()
        self._left: deque[Flight] = deque(maxlen=_LEFT if remember else 0)

    def begin(
        self, target: str, body: object, slot: int | None = None, request: str | None = None
    ) -> Flight:
        """Begin one that is about to be sent, and return it. ``slot`` and ``request``: see
        :class:`Flight`.
        """
        flight = Flight(target, body, slot, request)
        self._open.add(flight)
        return flight

    def end(self, flight: Flight, *, complete: bool) -> None:
        """Note the end of a flight. ``complete``: all of its answer has come."""
        if flight in self._open:
            self._open.remove(flight)
            if not complete:
                flight.left = time.monotonic()
                if flight.body is not None and len(flight.body) > _KEPT:
                    flight.body = None
                self._left.append(flight)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def unsettled(self) -> bool:
        """Whether the server may be computing something, even for a client that has left."""
        return bool(self._open or self._left)

    def settle(self, before: float) -> None:
        """Forget the clients that left ``before`` that time: the server has dropped their
        requests.
        """
        while self._left and (self._left[0].left or 0.0) < before:
            self._left.popleft()

    def launched_in(self, slot: int) -> Flight | None:
        """Return the request with which llama-server has just begun in ``slot``; ``None``: it
        can't be told.
        """
        waiting = [each for each in self.all() if not each.launched and each.request is not None]
        named = [each for each in waiting if each.slot == slot]
        # Who names a slot has it until it is known to be idle: there is nobody else's task in it.
        found = [each for each in named if each.left is None] or named
        if not found and not self.own:
            found = [each for each in waiting if each.slot is None]
        if len(found) != 1:
            return None
        found[0].launched = True
        return found[0]

    def clear(self) -> None:
        """Forget all requests: the server is gone."""
        self._left.clear()
        self._open.clear()

    @property
    def tokens(self) -> int:
        """The estimated tokens of prompts that the server has yet to read."""
        return sum(self._unanswered())

    @property
    def longest(self) -> int:
        """The estimated tokens of the longest of those prompts."""
        return max(self._unanswered(), default=0)

    def _unanswered(self) -> Iterator[int]:
        return (flight.tokens for flight in self.all() if not flight.answered)

    def count(self) -> None:
        """Make :attr:`tokens` as exact as possible. Reads bodies: not for the event loop."""
        for flight in self.all():
            flight.count()

    def all(self) -> tuple[Flight, ...]:
        """Return those that are there, and those whose clients have left since it was idle."""
        return (*self._open, *self._left)


class Verdict(NamedTuple):
    """The request to blame, ``None`` if that is unknown. ``trait``: its suspicious field."""

    blamed: Flight | None
    trait: Trait | None
    cleared: frozenset[Flight]


def judge(flights: tuple[Flight, ...], since: float) -> Verdict:
    """Return which of ``flights`` has kept the server since ``since`` (monotonic time).

    Reads their bodies: not on the event loop.
    """
    before = [flight for flight in flights if flight.began <= since]
    cleared = {flight for flight in flights if flight.began > since}
    strange = {flight: trait for flight in before if (trait := flight.trait()) is not None}
    if strange:
        # One whose answer was coming has done it less likely than one of which nothing came.
        worst = max(strange, key=lambda flight: (*strange[flight][:2], not flight.answered))
        cleared.update(flight for flight in before if flight not in strange)
        return Verdict(worst, strange[worst], frozenset(cleared))
    silent = [flight for flight in before if not flight.answered]
    if silent:
        cleared.update(flight for flight in before if flight.answered)
    if len(silent) == 1:
        return Verdict(silent[0], None, frozenset(cleared))
    if silent and all(flight.left for flight in silent):
        cleared.update(flight for flight in flights if not flight.left)
    return Verdict(None, None, frozenset(cleared))


def _traits(body: Mapping[str, Any]) -> Iterator[Trait]:
    for place in (body, *(body.get(name) for name in _INSIDE)):
        if not isinstance(place, dict):
            continue
        for field, weight in _STRANGE.items():
            if (value := place.get(field)) and value not in ({"type": "text"}, "none"):
                size = len(orjson.dumps(value))
                if weight > 1 or size >= _MANY:
                    yield Trait(weight, size, field)
