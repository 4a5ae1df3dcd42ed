"""The accounting of one request to a model, which its key pays for when it ends.

A complete answer tells itself how many tokens it took, whatever the shape that its client wants
(see :mod:`gateway.proxy.asking`). An answer whose client hung up doesn't. If it cost nothing,
hanging up before the last event would be a way around the limits. So its prompt is counted as soon
as it was sent to the backend, and of the answer what had arrived, or what the slot had written and
goes on to write (:mod:`gateway.access.abandoned_tasks`). llama-server is asked for that in the
background; where it can't say, the prompt is estimated. The same goes for complete answers that
don't tell: embeddings in llama.cpp's own shape, and streams of remote servers, many of which tell
only clients that ask (``stream_options``).
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from types import TracebackType
from typing import Final

from gateway.access.accounting import UnderWay
from gateway.access.past_requests import CachedFrom
from gateway.errors import CLIENT_GONE, GatewayError, status_of
from gateway.pipeline.request_context import RequestContext
from gateway.proxy.call import Call, Outcome
from gateway.proxy.cut_off import at_work
from gateway.proxy.prompt_size import estimate, split_size
from gateway.proxy.routes import TABLE, ModelIn
from gateway.proxy.sse import Usage
from gateway.proxy.untold import SMALL, aside, prompt_of

#: How many answers may wait for their tokens to be counted.
_WAITING: Final = 32
#: Bytes of a body per token, for an estimate when nothing can be counted.
_BYTES: Final = 4
#: Paths of llama-server for which no model reads anything.
_SPLITTING: Final = frozenset(route.target for route in TABLE if route.unqueued)
#: Paths of llama-server whose answers a model writes.
_WRITING: Final = frozenset(
    route.target for route in TABLE if route.streams or route.model is ModelIn.FORM
)


class Metered(Outcome):
    """The outcome of one request to a model, counted at its end.

    The limits of its key have let it in before (:mod:`gateway.pipeline.steps`). Set
    :attr:`status` when there is an answer.
    """

    __slots__ = (
        "_client",
        "_context",
        "_cut",
        "_method",
        "_route",
        "_started",
        "_streamed",
        "status",
    )

    def __init__(
        self,
        context: RequestContext,
        route: str,
        method: str,
        client: str | None,
        *,
        streamed: bool,
    ) -> None:
        Outcome.__init__(self)
        self._context = context
        self._route = route  # its path at the backend, perhaps with a query
        self._method = method
        self._client = client
        self._streamed = streamed
        self.key = str(context.principal.key_id)
        self.request_id = context.id
        self.status = 500

    def __enter__(self) -> Metered:
        self._started = time.perf_counter()
        self._context.services.accounting.open_requests[self] = None
        return self

    def so_far(self) -> UnderWay:
        """Return what is known of it, while it is under way."""
        context, principal = self._context, self._context.principal
        come = self.answer.events if self.answer is not None else 0
        return UnderWay(
            context.id,
            principal.key_id,
            principal.name,
            context.model,
            context.personality,
            self._route,
            time.perf_counter() - self._started,
            self.sent is not None,
            max(self.events, come),
            self._method,
            self._streamed,
            self._client,
            self._since(self.leased),
            self.loading,
            self._since(self.began),
            self.ending.task if self.ending is not None else None,
        )

    def _since(self, moment: float | None) -> float | None:
        return None if moment is None else moment - self._started

    def tell(self, error: GatewayError) -> GatewayError:
        """Return ``error`` as the client may see it."""
        return self._context.tell(error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.services.accounting.open_requests.pop(self, None)
        self.answer = self.ending = None  # it may still be counted for a while
        if error is not None:
            self.status = status_of(error)
            self.code = error.code if isinstance(error, GatewayError) else None
        elif self.error is not None:  # it broke when the head, with its 200, had gone out
            self.status, self.code = self.error.status, self.error.code
        sent, usage = self.sent, self.usage or Usage(completion_tokens=self.events)
        self._cut = self.status == CLIENT_GONE or _cuts(error or self.error)
        if sent is not None and (self.status == 200 or self._cut):
            usage, all_told = self._told(sent)
            if not all_told:
                self._count(sent, usage)
                return
        grant = self._context.grant
        failed = error is not None or self.error is not None
        if grant is not None and failed and sent is None and self.status >= 500:
            grant.give_back()  # it came to no model
        self._add(usage, time.perf_counter())

    def _told(self, sent: Call) -> tuple[Usage, bool]:
        """Return what an answer took, as far as it told, and whether that is all."""
        usage, hung_up = self.usage, self._cut
        if usage is None:
            path = sent.target.partition("?")[0]
            if path in _SPLITTING:
                return Usage(split_size(_length(sent), self.untold)), True
            # An event is about a token, and of a text a few bytes are.
            said = -(-self.untold // _BYTES) if path in _WRITING else 0
            return Usage(completion_tokens=max(self.events, said)), False
        if hung_up and (sent.several or not usage.completion_tokens or self.slots is not None):
            # Those that had ended told, or only the prompt was, at the start, or what had come was:
            # behind that something may have been kept back.
            seen = max(usage.completion_tokens, self.events)
            return usage._replace(completion_tokens=seen), not sent.several and self.slots is None
        # A remote llama-server tells the prompt of the first answer, but not in a stream.
        first = sent.many_prompts and sent.renamed is not None and not self.events
        return usage, not (first and usage.tokens_per_second)

    def _count(self, sent: Call, told: Usage) -> None:
        """Count the prompt of an answer that didn't tell everything, and then the answer."""
        ended = time.perf_counter()
        context, grant, accounting = (
            self._context,
            self._context.grant,
            self._context.services.accounting,
        )
        reserved = min(_length(sent), SMALL) // _BYTES + told.completion_tokens
        if grant is not None:
            grant.leave()
            grant.reserve(reserved)
        asks = accounting.unsettled < _WAITING
        slots = self.slots
        backend = self.server or context.services.scheduler.backend(sent.model)
        working: dict[int, int] = {}

        async def count() -> int | None:
            nonlocal told, working
            said = await asyncio.shield(slots) if slots is not None else None
            prompt = await prompt_of(context.services.scheduler, sent)
            if said is not None and prompt is not None:
                working = at_work(said, prompt, sent.answers)
                seen = max(sum(working.values()), told.completion_tokens)
                told = told._replace(completion_tokens=seen)
            return prompt

        def settled(tokens: int | None) -> None:
            if grant is not None:
                grant.reserve(-reserved)
            # The last resort takes no time, and cannot fail.
            prompt = _length(sent) // _BYTES if tokens is None else tokens
            self._add(told._replace(prompt_tokens=max(prompt, told.prompt_tokens)), ended)
            if working and backend is not None:
                accounting.abandoned_tasks.follow(backend, working, self._more)

        guess = partial(_guessed, sent)
        accounting.settle(count if asks else None, guess, settled)

    def _more(self, tokens: int) -> None:
        """Add tokens that were written after the request was counted."""
        context = self._context
        assert context.model is not None
        context.services.accounting.more(context.principal.key_id, context.model, tokens)
        if context.grant is not None:
            context.grant.close(tokens)

    def _add(self, usage: Usage, ended: float) -> None:
        context = self._context
        assert context.model is not None
        accounting = context.services.accounting
        accounting.add(
            accounting.wall(),
            context.principal.key_id,
            context.model,
            context.personality,
            self.status,
            usage,
            ended - self._started,
            self._route,
            context.id,
            self._method,
            self._streamed or self.events > 0,
            self.code,
            self._client,
            self.sent is not None or self.began is not None,
            self._since(self.leased),
            self.loading,
            self._since(self.began),
            self._cached_from() if usage.cached_tokens else None,
        )
        if context.grant is not None:
            context.grant.close(usage.prompt_tokens + usage.completion_tokens)

    def _cached_from(self) -> CachedFrom | None:
        """Return where those tokens of its prompt were that had not to be computed."""
        sent = self.sent
        if sent is None:
            return None
        if sent.turn is not None and sent.turn.restored:
            return "disk"
        backend = self._context.services.scheduler.backend(sent.model)
        return "slot" if backend is not None and backend.spec.ours else None


def _cuts(error: BaseException | None) -> bool:
    return isinstance(error, GatewayError) and error.cuts


async def _guessed(sent: Call) -> int:
    if not isinstance(sent.body, bytes):
        return estimate(sent.body, sent.passed, sent.target)
    return await aside(sent.body, estimate, 0, sent.passed, sent.target)


def _length(sent: Call) -> int:
    return len(sent.body) if isinstance(sent.body, bytes) else 0
