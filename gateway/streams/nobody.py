"""An answer that has no client: what is written is recorded, and goes nowhere else."""

from __future__ import annotations

from collections.abc import Callable

from multidict import CIMultiDict

from gateway.http.response import StartedResponse


class _Nowhere:
    """The transport of an answer that has no client, and needs none."""

    def write(self, data: bytes, /) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


class _NeverFull:
    """The back-pressure of nobody."""

    full = False
    when_full: Callable[[], None] | None = None

    async def drain(self) -> None:
        pass


async def to_nobody(status: int, headers: CIMultiDict[str], length: int | None) -> StartedResponse:
    """Begin such an answer: see :data:`gateway.http.response.StartResponse`."""
    return StartedResponse(status, _Nowhere(), _NeverFull(), chunked=False)
