"""Decides whether the proxy retries a request whose backend broke off.

All ways to ask a backend come here: relayed requests, unqueued ones, and the gateway's own.
:mod:`gateway.upstream.retry` says what may be sent again at all.
"""

from __future__ import annotations

import logging
from typing import Final

from gateway.backends.flights import Flight
from gateway.backends.scheduler import Scheduler
from gateway.backends.served import Served
from gateway.proxy.trial import convict
from gateway.upstream import ConnectFailed, ConnectionLost, may_retry

_log = logging.getLogger(__name__)

#: The errors with which such a request ends.
BROKEN_OFF: Final = (ConnectFailed, ConnectionLost)
#: How often a request is sent at most; and one whose llama-server died of another request each
#: time.
_ATTEMPTS: Final = 2
_ATTEMPTS_OF_BYSTANDERS: Final = 4


async def retry_or_raise(
    scheduler: Scheduler,
    backend: Served,
    error: ConnectFailed | ConnectionLost,
    *,
    deaths: int,
    flight: Flight | None,
    key: str,
    body: object,
    attempts: int,
    heard: bool = False,
    revives: bool = True,
) -> None:
    """Return if the request is to be sent once more, as if it had just arrived.

    Raises what its client is told otherwise. ``deaths`` is what those of ``backend`` were when it
    was sent, ``attempts`` how often it was by now, ``flight`` None where it had not come so far.
    ``heard``: its client has something of an answer already. ``revives``: the model is loaded again
    for it.
    """
    if flight is not None:
        guilty = await convict(scheduler, backend, error, deaths, flight, key=key, body=body)
        if guilty is not None:
            raise guilty from error
    # A llama-server of our own works for nobody whose connection is gone, and charges nothing.
    here = backend.spec.ours
    refused = here and isinstance(error, ConnectFailed)
    died_of_another = backend.deaths > deaths and backend.by_request
    most = _ATTEMPTS_OF_BYSTANDERS if died_of_another else _ATTEMPTS
    at_hand = isinstance(body, bytes)
    # No attempt more for one that was refused: a connection that was used again may have taken it
    # to the process that died, before the next one was refused.
    if at_hand and not heard and attempts < most:
        if backend.deaths == deaths:  # else it is known already, and another may be there
            await backend.suspect(refused=refused)
        may_wait = revives or backend.deaths == deaths
        if may_wait and may_retry(error, body_at_hand=at_hand, repeatable=here):
            _log.warning("%s; sending the request again", error.message)
            return
    raise await backend.reason(error, deaths) from error
