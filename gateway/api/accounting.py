"""Who used what: one record for each request to a model, made when it ends, however it ends.

Counters by key, model and day (UTC) are kept in memory and added to the store in batches, behind
the requests: what a ``kill -9`` can lose is the last few seconds. The limits of keys build on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import date
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiohttp import web

from gateway.api.limits import DAY, NO_LIMITS, Limiter
from gateway.api.visit import Visit
from gateway.errors import GatewayError
from gateway.proxy.relay import Outcome
from gateway.proxy.sse import Usage
from gateway.tasks import cancel_and_wait, spawn

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.store
    from gateway.store import Store
    from gateway.store import Usage as StoredUsage

#: Seconds between two writes of usage.
INTERVAL: Final = 10.0
#: Records kept for whoever wants to see what is going on.
RECENT: Final = 200

_EPOCH = date(1970, 1, 1).toordinal()
_log = logging.getLogger(__name__)


class Record(NamedTuple):
    """One request to a model, ended."""

    at: float  # when it ended, seconds since 1970
    key_id: str
    model: str
    personality: str | None
    status: int  # 499: the client went away
    usage: Usage
    seconds: float


class Accounting:
    """Counts requests and tokens. Works from the start; writes once it has been opened."""

    def __init__(
        self,
        *,
        write_every: float = INTERVAL,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.limiter = Limiter(self.tokens_today, monotonic=monotonic, wall=wall)
        self._recent: deque[tuple[Any, ...]] = deque(maxlen=RECENT)  # the fields of records
        self.wall = wall
        self._interval = write_every
        self._store: Store | None = None
        # requests, prompt tokens and completion tokens by key, model and day (since 1970)
        self._unwritten: dict[tuple[str, str, int], list[int]] = {}
        self._today = 0
        self._tokens_today: dict[str, int] = {}  # by key, written or not
        self._counted = asyncio.Event()
        self._writing = asyncio.Lock()
        self._failing = False
        self._writer: asyncio.Task[None] | None = None

    async def open(self, store: Store) -> None:
        """Take up what was used today before a restart, and write to ``store`` from now on.

        ``store`` stays its owner's, and must be open until :meth:`close` is through.
        """
        today = int(self.wall()) // DAY
        for used in await store.usage_of(since=_date(today)):
            if used.day == _date(today):
                self._count_today(today, used.key_id, used.prompt_tokens + used.completion_tokens)
        self._store = store
        self._writer = spawn(self._keep_writing(), name="write usage")

    async def close(self) -> None:
        """Write what is unwritten."""
        async with self._writing:  # so that no write is cut off
            await cancel_and_wait(self._writer)
        await self._write()

    # --- for each request ------------------------------------------------------------------

    def add(
        self,
        at: float,
        key_id: str,
        model: str,
        personality: str | None,
        status: int,
        usage: Usage,
        seconds: float,
    ) -> None:
        """Count a request that has ended: the fields of its :class:`Record`."""
        # Hardly one of them is ever looked at, so it is not made for each.
        self._recent.append((at, key_id, model, personality, status, usage, seconds))
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        day = int(at) // DAY
        slot = (key_id, model, day)
        counters = self._unwritten.get(slot)
        if counters is None:
            self._unwritten[slot] = [1, prompt, completion]
            self._counted.set()
        else:
            counters[0] += 1
            counters[1] += prompt
            counters[2] += completion
        self._count_today(day, key_id, prompt + completion)

    @property
    def recent(self) -> list[Record]:
        """The last requests, the newest last."""
        return [Record(*fields) for fields in self._recent]

    def tokens_today(self, key_id: str) -> int:
        """Tokens that the key has used since midnight, UTC."""
        if int(self.wall()) // DAY != self._today:
            return 0
        return self._tokens_today.get(key_id, 0)

    def _count_today(self, day: int, key_id: str, tokens: int) -> None:
        if day != self._today:
            self._today = day
            self._tokens_today.clear()
        self._tokens_today[key_id] = self._tokens_today.get(key_id, 0) + tokens

    # --- the store -------------------------------------------------------------------------

    async def usage(self, *, days: int) -> list[StoredUsage]:
        """Counters of today and the ``days - 1`` days before, up to this moment.

        Ordered by day, key, model. Raises :class:`GatewayError` where the store can't be read.
        """
        store = self._store
        if store is None:
            return []
        # A task of its own: whoever asks may go away, and a write must not be cut off.
        await asyncio.shield(spawn(self._write(), name="write usage"))
        return await store.usage_of(since=_date(int(self.wall()) // DAY - days + 1))

    async def _keep_writing(self) -> None:
        while True:
            await self._counted.wait()
            # The batch: what else is counted in this time goes along.
            await asyncio.sleep(self._interval)
            await self._write()

    async def _write(self) -> None:
        """Write unwritten counters; what fails stays unwritten, and is tried with the next."""
        async with self._writing:  # so that after it everything counted before is in the store
            store, batch = self._store, self._unwritten
            if store is None or not batch:
                return
            from gateway.store import Usage as StoredUsage  # imported by whoever opened the store

            self._unwritten = {}
            self._counted.clear()
            try:
                await store.add_usage(
                    StoredUsage(key_id, model, _date(day), *counters)
                    for (key_id, model, day), counters in batch.items()
                )
            except Exception as error:  # cancelled, the store would still go through with it
                self._take_back(batch)
                if not isinstance(error, GatewayError):
                    raise
                if not self._failing:
                    _log.error("usage of keys cannot be written, trying again: %s", error)
                self._failing = True
            else:
                if self._failing:
                    _log.info("usage of keys is written again")
                self._failing = False

    def _take_back(self, batch: dict[tuple[str, str, int], list[int]]) -> None:
        for slot, counters in self._unwritten.items():
            if (before := batch.get(slot)) is not None:
                counters[:] = [a + b for a, b in zip(before, counters, strict=True)]
        self._unwritten = {**batch, **self._unwritten}
        self._counted.set()


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
        visit = self._visit
        # An answer that was cut off doesn't tell what it took: an event is about a token. If it
        # cost nothing, hanging up before the last event would be a way around the limits.
        usage = self.usage or Usage(completion_tokens=self.events)
        if error is not None:
            self.status = _status_of(error)
        elif self.error is not None:  # it broke when the head, with its 200, had gone out
            self.status = self.error.status
        assert visit.model is not None
        accounting = visit.parts.accounting
        accounting.add(
            accounting.wall(),
            visit.principal.key_id,
            visit.model,
            visit.personality,
            self.status,
            usage,
            time.perf_counter() - self._started,
        )
        if visit.grant is not None:
            visit.grant.close(usage.prompt_tokens + usage.completion_tokens)


def _status_of(error: BaseException) -> int:
    if isinstance(error, GatewayError):
        return error.status
    return 499 if isinstance(error, asyncio.CancelledError | ConnectionError) else 500


def _date(day: int) -> date:
    return date.fromordinal(_EPOCH + day)


ACCOUNTING = web.AppKey("accounting", Accounting)
