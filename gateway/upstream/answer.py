"""The answer of an exchange with a backend: a head, pieces of body, and an end or an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.upstream.errors import UpstreamError


@dataclass(slots=True)
class ResponseHead:
    """The final (non-1xx) head of an answer; names and values as the backend sent them.

    ``length``: bytes of body that will come, None where the answer doesn't say (chunked, or
    until the connection closes). Content-Length itself is not among the ``headers``, which may be
    shared with other answers.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    length: int | None


class ResponseSink(Protocol):
    """Callbacks from the event loop, never awaited, in the order head, body*, end or error.

    Exactly one of ``on_end`` and ``on_error`` comes, unless the exchange is aborted: then
    nothing comes any more.
    """

    def on_head(self, head: ResponseHead) -> None:
        """The answer has begun."""

    def on_body(self, data: bytes) -> None:
        """A piece of the body, freed of chunk framing, as soon as it arrived."""

    def on_end(self) -> None:
        """The answer is complete and was correctly framed."""

    def on_error(self, error: UpstreamError) -> None:
        """The answer, or what was to become one, is lost."""
