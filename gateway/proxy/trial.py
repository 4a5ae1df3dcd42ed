"""Decides what becomes of a request whose llama-server died under it.

One that may have done it is not sent again, and is refused when its client sends it again. Deaths
that come from outside (a signal that no process sends to itself) are no request's doing.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any, Final

from gateway.backends.flights import Flight
from gateway.backends.scheduler import Scheduler
from gateway.backends.served import Served
from gateway.errors import BackendError, GatewayError, Unprocessable
from gateway.proxy.strange import trait
from gateway.upstream import ConnectionLost, UpstreamError

_log = logging.getLogger(__name__)

#: The ``code`` of the error for a repeated request that may have killed a llama-server before.
SUSPECT: Final = "suspected_request"
#: Bytes. Longer bodies are read in another thread.
_SMALL: Final = 64 * 1024


class NotSentAgain(BackendError):
    """502: the llama-server died, maybe of this request, which is therefore not sent again."""

    default_code = "backend_died"
    retryable = False


async def refuse_suspects(
    scheduler: Scheduler, key: str, model: str, target: str, body: object
) -> None:
    """Raise :class:`Unprocessable` for what is suspected. For when there are suspects at all."""
    suspects = scheduler.suspects
    if not isinstance(body, bytes):
        return
    left = await _aside(len(body), suspects.known, model, target, body)
    if left is not None:
        raise Unprocessable(
            f"the llama-server of {model!r} died when it worked on this same request, a while ago. "
            f"It is not sent again for {math.ceil(left / 60)} min; change it before that",
            code=SUSPECT,
            headers={"Retry-After": str(math.ceil(left))},
        )
    left = suspects.paused(key, model)
    if left is None or (strange := await _aside(len(body), trait, body)) is None:
        return
    raise Unprocessable(
        f"the llama-server of {model!r} has died of several requests of this key. Until "
        f"{math.ceil(left)} s from now its requests with `{strange}` are refused; plain ones are "
        "answered",
        code=SUSPECT,
        param=strange,
        headers={"Retry-After": str(math.ceil(left))},
    )


async def convict(
    scheduler: Scheduler,
    backend: Served,
    error: UpstreamError,
    deaths: int,
    flight: Flight,
    *,
    key: str,
    body: object,
) -> GatewayError | None:
    """Return what the client of ``flight`` is told if that may have ended ``backend``; None: it has
    not.

    ``error`` is how its connection broke, ``deaths`` what they were when it was sent. Returns when
    the death, if there is one, has been dealt with. To be called as soon as the connection breaks:
    how many others broke with it says how many were there.
    """
    if not backend.spec.ours or not (isinstance(error, ConnectionLost) or error.sent):
        return None
    accused = backend.accused
    accused.append(flight)
    await backend.suspect()
    if backend.deaths <= deaths or not backend.by_request or flight.cleared:
        return None
    target = flight.target
    size = len(body) if isinstance(body, bytes) else 0
    strange = await _aside(size, trait, body)
    if flight.blamed is None and strange is None and len(accused) > 1:
        return None
    model = backend.spec.name
    if isinstance(body, bytes):
        await _aside(size, scheduler.suspects.remember, key, model, target, body)
    if flight.blamed is not None:
        return flight.blamed
    what = f" with `{strange}`" if strange is not None else ""
    _log.error(
        "model %s: a request to %s%s may have ended it, and is not sent again",
        model,
        target.partition("?")[0][:100],
        what,
    )
    death = backend.last_death
    assert death is not None
    return NotSentAgain(
        f"{death.public} This request{what} was at work there and may have done it: it is not "
        "sent again.",
        detail=death.detail,
        param=strange,
    )


async def _aside(size: int, work: Any, *arguments: Any) -> Any:
    if size <= _SMALL:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)
