"""A small request that llama-server answers beside its running ones, so it waits for no slot.

Counting tokens of a model with one slot must not wait until a long answer is done; nor must the
look at what that slot is doing.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.backends.backend import Backend, State
from gateway.backends.scheduler import Lease, Scheduler
from gateway.errors import BadRequest
from gateway.proxy import headers
from gateway.proxy.failure import Failure
from gateway.proxy.outgoing import Whole
from gateway.proxy.relay import Call
from gateway.upstream import ConnectFailed, ConnectionLost, Fetched

#: Seconds, and bytes of an answer. /slots of many slots and lists of tokens are long.
_TIMEOUT = 120.0
_MAX_ANSWER = 64 * 2**20

_UP = (State.READY, State.DRAINING)


def is_up(scheduler: Scheduler, model: str) -> bool:
    """Whether the model's llama-server runs and can be asked."""
    backend = scheduler.backend(model)
    return backend is not None and backend.state in _UP


async def ask_beside(scheduler: Scheduler, call: Call, *, load: bool = True) -> Fetched:
    """The whole answer to ``call``, whose body is bytes.

    The model is loaded first where that is needed, or :class:`BadRequest` raised if it is not
    to be. Raises :class:`GatewayError`.
    """
    lease = scheduler.try_lease(call.model)
    if lease is None and is_up(scheduler, call.model):
        backend = scheduler.backend(call.model)
        assert backend is not None
        try:
            return await _fetch(backend, call)
        except (ConnectFailed, ConnectionLost):
            # Without a lease nothing kept it from being unloaded meanwhile.
            if not load:
                raise
    if lease is None:
        if not load:
            raise not_loaded(call.model)
        lease = await scheduler.lease(call.model)
    return await _with(lease, call)


async def _with(lease: Lease, call: Call) -> Fetched:
    with lease:
        return await _fetch(lease.backend, call)


async def _fetch(backend: Backend, call: Call) -> Fetched:
    if call.prepare is not None:
        call.body = await call.prepare(backend)
        call.prepare = None
    assert isinstance(call.body, bytes)
    return await backend.pool.fetch(
        call.method,
        call.target,
        headers=call.headers,
        body=call.body,
        timeout=_TIMEOUT,
        max_body=_MAX_ANSWER,
    )


def not_loaded(model: str) -> BadRequest:
    """What asking about a model that isn't there is answered with, as in router mode: 400."""
    return BadRequest(
        f"the model {model!r} is not loaded: load it with POST /models/load, or add "
        "autoload=true to the query",
        code="model_not_loaded",
        param="model",
    )


def to_client(
    call: Call, fetched: Fetched, change: Callable[[bytes], bytes] | None = None
) -> Whole:
    """The answer for the client; ``change`` is for the body of a success."""
    passed = headers.to_client(fetched.headers)
    status, body = fetched.status, fetched.body
    if status >= 400:
        failure = Failure.read(status, body)
        status, body = failure.status, call.dialect.error(failure)
        passed = headers.of_json(passed)
    elif change is not None:
        body = change(body)
    return Whole(status, passed, body)
