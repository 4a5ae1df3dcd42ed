"""Remembers which of several servers last had the beginning of a conversation. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, Generic, Protocol, TypeVar

from gateway.bounded_cache import BoundedCache

#: How many turns of conversations are remembered for one model.
_KEPT: Final = 8192
#: How many messages since the last turn are searched: an agent makes many tool calls.
_LOOKED_AT: Final = 256
#: The load of a server, as a multiple of the average, up to which it keeps its conversations
#: ("consistent hashing with bounded loads", Mirrokni et al.).
_OVER: Final = 1.25


class BusyServer(Protocol):
    """A server and the number of requests it has."""

    @property
    def in_flight(self) -> int: ...


ServerT = TypeVar("ServerT", bound=BusyServer)


class Affinity(Generic[ServerT]):
    """Remembers where each turn of a conversation went: by the last link of its chain.

    The next turn has that link in its own chain, before what is new. A beginning that many
    conversations have in common (a system prompt, tools) was no whole turn, and draws nobody.
    """

    def __init__(
        self, most: int = _KEPT, *, agreed: Callable[[ServerT], bytes] | None = None
    ) -> None:
        """``agreed``: the name that other gateways know a server by, where they use the same ones.

        Then a conversation that isn't known here goes where each of them sends it: to the first in
        an order that comes of its beginning and of that name (rendezvous hashing).
        """
        self._last: BoundedCache[bytes, ServerT] = BoundedCache(most)
        self._agreed = agreed

    def note(self, prefix: Sequence[bytes], server: ServerT) -> None:
        """Note that the turn with the chain ``prefix`` went to ``server``."""
        if prefix:
            self._last[prefix[-1]] = server

    def choose(
        self,
        prefix: Sequence[bytes],
        servers: Sequence[ServerT],
        parallel: int,
        saved: Callable[[ServerT], int] | None = None,
    ) -> ServerT | None:
        """Return which of ``servers`` has most of ``prefix``, unless it has too much to do.

        ``parallel``: requests that all of them are to have at once. ``saved`` returns how much of
        the conversation one can read back from its disk, which counts where none had it yet.
        """
        last = self._last.get
        for link in reversed(prefix[-_LOOKED_AT:]):
            if (server := last(link)) is not None and server in servers:
                return server if _has_room(server, servers, parallel) else None
        if saved is not None and servers:
            chosen = max(servers, key=saved)
            if saved(chosen):
                return chosen if _has_room(chosen, servers, parallel) else None
        if (agreed := self._agreed) is None or not prefix or not servers:
            return None
        # The first message after what many conversations begin with: it stays, turn by turn.
        beginning = prefix[:2][-1]
        chosen = max(servers, key=lambda one: blake2b(beginning + agreed(one)).digest())
        return chosen if _has_room(chosen, servers, parallel) else None


def _has_room(server: BusyServer, servers: Sequence[BusyServer], parallel: int) -> bool:
    count = len(servers)
    average = (sum(other.in_flight for other in servers) + 1) / count
    most = min(math.ceil(_OVER * average), math.ceil(parallel / count))
    return server.in_flight < most
