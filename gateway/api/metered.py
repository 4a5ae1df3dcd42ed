"""One request to a model, as its key pays for it: let in by its limits, counted when it ends.

An answer that was waited for says itself what it took. One that was hung up on doesn't, and if it
cost nothing, hanging up before the last event would be a way around the limits: so its prompt is
counted once it was sent to the backend, and of its answer what had come. llama-server is asked how
many tokens the prompt has, off the request's way; where it can't say, they are estimated. The same
goes for streams of servers elsewhere, many of which tell only who asks for it (``stream_options``).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeVar

from gateway.api.limits import NO_LIMITS
from gateway.api.visit import Visit
from gateway.backends.scheduler import Scheduler
from gateway.errors import GatewayError
from gateway.proxy.call import Call, Outcome
from gateway.proxy.prompt_size import answer, estimate, question
from gateway.proxy.sse import Usage

#: Seconds that llama-server may take to count a prompt, and how many answers may wait for that.
_PATIENCE: Final = 4.0
_WAITING: Final = 32
#: Bytes. Longer bodies are looked into by another thread.
_SMALL: Final = 64 * 1024
#: Bytes of a body to a token, where not even that can be done.
_BYTES: Final = 4
#: Bytes of an answer: tokens are told one by one by some routes.
_MAX_ANSWER: Final = 16 * 2**20
#: The status of a request whose client went away: nginx's number.
HUNG_UP: Final = 499
_JSON: Final = b"Content-Type: application/json\r\n"

T = TypeVar("T")


@contextlib.contextmanager
def admitted(visit: Visit) -> Iterator[None]:
    """Let in what counts as a request of its key, without tokens; one that fails doesn't count.

    Raises :class:`gateway.errors.RateLimited`.
    """
    principal = visit.principal
    if principal.limits is NO_LIMITS:
        yield
        return
    grant = visit.parts.accounting.limiter.admit(principal.key_id, principal.limits)
    visit.grant = grant
    try:
        yield
    except GatewayError:
        grant.give_back()
        raise
    finally:
        grant.close(0)


class Metered(Outcome):
    """The outcome of one request to a model: let in by the limits of its key, counted at its end.

    Entering raises :class:`gateway.errors.RateLimited`. Set :attr:`status` when there is an
    answer.
    """

    __slots__ = ("_started", "_visit", "status")

    def __init__(self, visit: Visit) -> None:
        Outcome.__init__(self)
        self._visit = visit
        self.status = 500

    def __enter__(self) -> Metered:
        visit = self._visit
        principal = visit.principal
        if principal.limits is not NO_LIMITS:
            limiter = visit.parts.accounting.limiter
            visit.grant = limiter.admit(principal.key_id, principal.limits)
        self._started = time.perf_counter()
        return self

    def tell(self, error: GatewayError) -> GatewayError:
        """``error`` as the client may see it."""
        return self._visit.tell(error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.status = _status_of(error)
        elif self.error is not None:  # it broke when the head, with its 200, had gone out
            self.status = self.error.status
        usage = self.usage
        hung_up = self.status == HUNG_UP
        if (sent := self.sent) is not None and (hung_up or (self.status == 200 and self.events)):
            if usage is None:
                self._count(sent, Usage(completion_tokens=self.events))
                return
            if hung_up and not usage.completion_tokens:  # only the prompt's were told, at the start
                usage = usage._replace(completion_tokens=self.events)
        if sent is not None and sent.several and usage is not None and usage.tokens_per_second:
            # Such numbers are llama-server's, and those of one answer. In a stream all were seen.
            usage = usage._replace(completion_tokens=max(usage.completion_tokens, self.events))
            if sent.many_prompts:
                self._count(sent, usage)
                return
        grant = self._visit.grant
        failed = error is not None or self.error is not None
        if grant is not None and failed and self.sent is None and self.status >= 500:
            grant.give_back()  # it came to no model
        # An event is about a token.
        self._add(usage or Usage(completion_tokens=self.events), time.perf_counter())

    def _count(self, sent: Call, told: Usage) -> None:
        """Have the prompt counted of an answer that didn't tell all, and then all of it."""
        ended = time.perf_counter()
        visit, events = self._visit, told.completion_tokens
        grant = visit.grant
        reserved = min(_length(sent), _SMALL) // _BYTES + events
        if grant is not None:
            grant.leave()
            grant.reserve(reserved)

        def settled(tokens: int | None) -> None:
            if grant is not None:
                grant.reserve(-reserved)
            # The last resort takes no time, and cannot fail.
            prompt = _length(sent) // _BYTES if tokens is None else tokens
            self._add(told._replace(prompt_tokens=max(prompt, told.prompt_tokens)), ended)

        accounting = visit.parts.accounting
        count = partial(_counted, visit.parts.scheduler, sent)
        guess = partial(_aside, _length(sent), estimate, sent.body, sent.length)
        accounting.settle(count if accounting.unsettled < _WAITING else None, guess, settled)

    def _add(self, usage: Usage, ended: float) -> None:
        visit = self._visit
        assert visit.model is not None
        accounting = visit.parts.accounting
        accounting.add(
            accounting.wall(),
            visit.principal.key_id,
            visit.model,
            visit.personality,
            self.status,
            usage,
            ended - self._started,
        )
        if visit.grant is not None:
            visit.grant.close(usage.prompt_tokens + usage.completion_tokens)


def _status_of(error: BaseException) -> int:
    if isinstance(error, GatewayError):
        return error.status
    return HUNG_UP if isinstance(error, asyncio.CancelledError | ConnectionError) else 500


# --- answers that do not tell ----------------------------------------------------------------


def _length(sent: Call) -> int:
    return len(sent.body) if isinstance(sent.body, bytes) else 0


async def _counted(scheduler: Scheduler, sent: Call) -> int | None:
    """What llama-server says, or ``None`` if it can't, or takes too long."""
    body, backend = sent.body, scheduler.backend(sent.model)
    if not isinstance(body, bytes) or backend is None or backend.spec.url or backend.sleeping:
        # Servers elsewhere may have no such route, and some are paid for each request.
        return None
    try:
        asked = await _aside(len(body), question, sent.target, body)
        if asked is None:
            return None
        fetched = await backend.pool.fetch(
            "POST",
            asked.target,
            headers=_JSON,
            body=asked.body,
            timeout=_PATIENCE,
            max_body=_MAX_ANSWER,
        )
        if fetched.status != 200:
            return None
        return await _aside(len(fetched.body), answer, asked, fetched.body, body)
    except GatewayError:  # it is not there any more, or too busy
        return None


async def _aside(size: int, work: Callable[..., T], *arguments: Any) -> T:
    """``work`` on something of ``size`` bytes: in another thread, if that takes a while."""
    if size <= _SMALL:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)
