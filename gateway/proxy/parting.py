"""Ends a request to llama-server whose client has hung up, after a look at the slots.

What it has written for that request is known there only as long as it is at work
(:mod:`gateway.proxy.cut_off`). The look is answered between two of its steps, as the end would be
noticed, so the work stops no later than it would have.
"""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.backends.served import Served
from gateway.proxy.sink import Sink
from gateway.tasks import spawn
from gateway.upstream import Exchange

#: Seconds that the look may take.
_PATIENCE: Final = 1.0
#: Connections of a backend's pool, beyond one per slot, that may be used for this.
_PLACES: Final = 4


def part(exchange: Exchange, answer: Sink, backend: Served) -> asyncio.Task[bytes | None] | None:
    """End ``exchange``, soon; what the slots did by then, or ``None`` where that isn't known.

    A remote server is left at once, and so is any if many clients hang up at the same time.
    """
    if not _tells(backend) or answer.ended:
        exchange.abort()
        answer.done()
        return None

    def leave(_: asyncio.Task[bytes | None]) -> None:
        exchange.abort()
        answer.done()

    exchange.pause()
    looking = spawn(_fetch_slots(backend), name="look at what was hung up on")
    looking.add_done_callback(leave)
    return looking


def _tells(backend: Served) -> bool:
    if not backend.spec.ours or backend.sleeping:
        return False
    return backend.pool.exchanges <= backend.spec.parallel + _PLACES


async def _fetch_slots(backend: Served) -> bytes | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await backend.slot_looks.now()
    except TimeoutError:
        return None
