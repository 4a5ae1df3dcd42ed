"""Unqueued requests: llama-server answers them beside its running ones, so they wait for no slot.

Counting tokens of a model with one slot must not wait until a long answer is done; nor must the
look at what that slot is doing. A look (GET) is no use of the model: it takes no lease, so it
neither puts off its ``ttl`` nor keeps it from being unloaded.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable

from gateway.backends.backend import Backend, State
from gateway.backends.flights import Flight
from gateway.backends.scheduler import Scheduler
from gateway.errors import BadRequest
from gateway.http.response import BufferedResponse
from gateway.proxy import headers
from gateway.proxy.blame import failure_of
from gateway.proxy.call import Call, Outcome
from gateway.proxy.coding import unpacked
from gateway.proxy.renaming import named_anew
from gateway.proxy.retry import BROKEN_OFF, retry_or_raise
from gateway.proxy.trial import refuse_suspects
from gateway.proxy.waiting import lease as wait_for_lease
from gateway.upstream import Fetched
from gateway.workers import WORKERS

#: The limits of an answer, in seconds and bytes: /slots of many slots and lists of tokens are long.
_TIMEOUT = 120.0
_MAX_ANSWER = 64 * 2**20
_MAX_ERROR = 256 * 1024

#: The code of the error for a model that isn't loaded.
NOT_LOADED = "model_not_loaded"
_UP = (State.READY, State.DRAINING)


def running(scheduler: Scheduler, model: str) -> Backend | None:
    """Return the model's backend, if it runs and can be asked."""
    backend = scheduler.backend(model)
    return backend if backend is not None and backend.state in _UP else None


async def ask_unqueued(
    scheduler: Scheduler, call: Call, *, load: bool = True, outcome: Outcome | None = None
) -> Fetched:
    """Return the whole answer to ``call``, whose body is bytes.

    The model is loaded first where that is needed, or :class:`BadRequest` raised if it is not
    to be. A backend that dies meanwhile is asked once more. Raises :class:`GatewayError`.
    """
    look = call.method == "GET"
    outcome = Outcome() if outcome is None else outcome
    key = outcome.key
    if scheduler.suspects and not look:
        await refuse_suspects(scheduler, key, call.model, call.target, call.body)
    for attempts in itertools.count(1):
        lease = scheduler.try_lease(call.model) if not look else None
        backend = lease.backend if lease is not None else running(scheduler, call.model)
        if backend is None:
            if not load or (look and attempts > 1):  # it has been unloaded meanwhile: so it stays
                raise not_loaded(call.model)
            lease = await wait_for_lease(scheduler, call.model, outcome)
            backend = lease.backend
        deaths = backend.deaths
        flight: Flight | None = None
        try:
            await _prepare(backend, call)
            if not look:
                flight = backend.flights.begin(call.target, call.body)
            fetched = await _fetch(backend, call)
            outcome.began = time.perf_counter()
            return fetched
        except BROKEN_OFF as error:
            # Without a lease nothing kept it from being unloaded meanwhile: once more, then.
            await retry_or_raise(
                scheduler,
                backend,
                error,
                deaths=deaths,
                flight=flight,
                key=key,
                body=call.body,
                attempts=attempts,
                revives=load and not look,
            )
        finally:
            if flight is not None:
                backend.flights.end(flight, complete=sys.exception() is None)
            if lease is not None:
                lease.release()
    raise AssertionError("it returns or raises before it has counted so far")


async def _prepare(backend: Backend, call: Call) -> None:
    if call.prepare is not None:
        call.body = await call.prepare(backend)
        call.prepare = None


async def _fetch(backend: Backend, call: Call) -> Fetched:
    assert isinstance(call.body, bytes)
    return await backend.pool.fetch(call, timeout=_TIMEOUT, max_body=_MAX_ANSWER)


def not_loaded(model: str) -> BadRequest:
    """Return what asking about a model that isn't there is answered with, as in
    router mode: 400.
    """
    return BadRequest(
        f"the model {model!r} is not loaded: load it with POST /models/load, or add "
        "autoload=true to the query",
        code=NOT_LOADED,
        param="model",
    )


async def to_client(
    scheduler: Scheduler,
    call: Call,
    fetched: Fetched,
    change: Callable[[bytes], bytes] | None = None,
) -> BufferedResponse:
    """Return the answer for the client; ``change`` is for the body of a success."""
    passed = headers.to_client(fetched.headers)
    status, body = fetched.status, fetched.body
    if call.coded:
        passed = (*passed, ("Vary", headers.vary(fetched.headers)))
    if status >= 400:
        if (coding := headers.find(fetched.headers, b"content-encoding")) is not None:
            body = unpacked(coding.decode("latin-1"), body, _MAX_ERROR)
        backend = scheduler.backend(call.model)
        here = backend is None or backend.spec.ours
        asked = call.asked or call.body
        about = call.model, here, call.target, asked, status
        failure = await failure_of(*about, body, fetched.headers)
        status, body = failure.status, call.dialect.error(failure)
        passed = headers.of_error(passed, failure.retry_after, fleeting=failure.fleeting)
    elif change is not None:
        body = change(body)
    elif call.renamed is not None and not headers.find(fetched.headers, b"content-encoding"):
        _, named = await WORKERS.run(named_anew, body, call.renamed)
        assert named is not None
        body = named
    return BufferedResponse(status, passed, body)
