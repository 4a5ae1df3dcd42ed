"""Asks llama-server how many tokens a prompt had, after an answer that doesn't tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from gateway.backends.backend import Backend
from gateway.backends.scheduler import Scheduler
from gateway.errors import GatewayError
from gateway.proxy.call import Call
from gateway.proxy.prompt_size import answer, beside_texts, questions
from gateway.upstream import UpstreamRequest
from gateway.workers import WORKERS, is_small, with_data

#: Seconds that llama-server may take for one question.
_PATIENCE: Final = 4.0
#: Bytes. Longer bodies are read in another thread.
SMALL: Final = 64 * 1024
#: The most bytes of an answer: some routes list the tokens one by one.
_MAX_ANSWER: Final = 16 * 2**20
_JSON: Final = b"Content-Type: application/json\r\n"

T = TypeVar("T")


async def prompt_of(scheduler: Scheduler, sent: Call) -> int | None:
    """Return the tokens of the prompt that was ``sent``; ``None`` if it can't be told in time."""
    body, backend = sent.body, _here(scheduler, sent)
    if not isinstance(body, bytes) or backend is None:
        return None
    try:
        asked = await aside(body, questions, 1, sent.target)
        tokens = await aside(body, beside_texts, 1, sent.target)
        for one in asked:
            fetched = await backend.pool.fetch(
                UpstreamRequest("POST", one.target, _JSON, one.body),
                timeout=_PATIENCE,
                max_body=_MAX_ANSWER,
            )
            if fetched.status != 200:
                return None
            counted = await aside(fetched.body, answer, 1, one)
            if counted is None:
                return None
            tokens += counted
        return tokens if asked or tokens else None
    except GatewayError:  # it is not there any more, or too busy
        return None


def _here(scheduler: Scheduler, sent: Call) -> Backend | None:
    """Return the backend if it is local and awake. Remote servers aren't asked: they may lack the
    route, and some charge for requests.
    """
    backend = scheduler.backend(sent.model)
    return None if backend is None or not backend.spec.ours or backend.sleeping else backend


async def aside(data: bytes, work: Callable[..., T], at: int, *others: Any) -> T:
    """Return ``work`` of ``data``, its argument number ``at``; done elsewhere if it takes long."""
    if len(data) <= SMALL:
        return work(*others[:at], data, *others[at:])
    if is_small(data):
        return (await asyncio.to_thread(with_data, data, work, at, *others))[0]  # type: ignore[no-any-return]
    return (await WORKERS.run(with_data, data, work, at, *others))[0]  # type: ignore[no-any-return]
