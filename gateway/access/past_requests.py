"""Ended requests to models, as they are stored and queried. Pure."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

#: Where tokens of a prompt were that had not to be computed: in the memory of the model's
#: llama-server, or in a file that was read back for the request.
CachedFrom = Literal["slot", "disk"]
CACHED_FROM: Final[tuple[CachedFrom, ...]] = ("slot", "disk")


class PastRequest(NamedTuple):
    """A request that has ended, without anything of its content. Times are in seconds."""

    seq: int  # when it ended, microseconds since 1970: a number of its own, later ones are higher
    id: str
    key_id: str
    model: str
    personality: str | None
    method: str
    route: str  # its path at the backend
    streamed: bool
    status: int  # gateway.errors.CLIENT_GONE: the client went away
    code: str | None  # of the error that it ended with
    client: str | None  # the address it came from
    seconds: float  # all of it
    queue: float  # waiting for a slot, or for the place of another model
    load: float  # waiting for its model to load
    prefill: float | None  # until the first token; None: included in ``generation``
    generation: float | None  # None: it came to no model
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tokens_per_second: float | None
    cached_from: CachedFrom | None = None  # None: none were cached, or another machine had them
    slot: int | None = None  # of its model's llama-server, if that is known
    task: int | None = None  # its number there, since the start of that llama-server


class RequestFilter(NamedTuple):
    """A filter for past requests whose ``seq`` is below ``before``; ``None`` in a field: any."""

    limit: int
    before: int | None = None
    key_ids: frozenset[str] | None = None
    model: str | None = None
    statuses: tuple[tuple[int, int], ...] | None = None  # from and to, both included
    slow: float | None = None  # seconds that it took at least
    cached_from: frozenset[CachedFrom | None] | None = None

    def has(self, request: PastRequest) -> bool:
        """Return whether ``request`` is one of them, whatever the limit."""
        return (
            (self.before is None or request.seq < self.before)
            and (self.key_ids is None or request.key_id in self.key_ids)
            and (self.model is None or request.model == self.model)
            and (self.slow is None or request.seconds >= self.slow)
            and (self.cached_from is None or request.cached_from in self.cached_from)
            and (
                self.statuses is None
                or any(first <= request.status <= last for first, last in self.statuses)
            )
        )
