"""Accounting: one record for each request to a model, made when the request ends, however it ends.

Counters by key, model and day (UTC) are kept in memory and added to the store in batches, behind
the requests: what a ``kill -9`` can lose is the last few seconds. The limits of keys build on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from gateway.access.abandoned_tasks import AbandonedTasks
from gateway.access.measures import RequestMeasures
from gateway.access.rate_limits import DAY, Limiter
from gateway.access.request_log import Record, RequestLog, Tasks, of_nothing
from gateway.errors import GatewayError, Unavailable
from gateway.tasks import cancel_and_wait, spawn, spawn_lasting

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.access.store
    from gateway.access.store import DailyUsage, Store

#: Seconds between two writes of usage.
INTERVAL: Final = 10.0

#: Seconds that counting the tokens of an ended request may take, including the wait for its turn,
#: and how many requests are counted at once. Counting is cheap compared with the request, but a
#: client that keeps hanging up must not keep a llama-server busy.
PATIENCE: Final = 5.0
#: Seconds that a query of usage waits for counters to be written.
_SOON: Final = 2.0
_AT_ONCE: Final = 2
_EPOCH = date(1970, 1, 1).toordinal()
_log = logging.getLogger(__name__)


class UnderWay(NamedTuple):
    """A request to a model that has not ended yet."""

    id: str
    key_id: str
    key_name: str
    model: str | None
    personality: str | None
    route: str
    seconds: float
    sent: bool  # to its backend: it waits for none
    tokens: int  # of a stream, about: as many events as have come
    method: str
    streamed: bool  # if known yet
    client: str | None
    waited: float | None  # as in a Record
    loading: float
    began: float | None
    task: asyncio.Task[Any] | None  # what serves it


class Metering(Protocol):
    """A counter of one request that is under way."""

    def so_far(self) -> UnderWay:
        """Return what is known of it."""


class Total(NamedTuple):
    """The sum of all requests to one model that have ended since the gateway started."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    #: The speed of the last answer that told its speed.
    tokens_per_second: float | None = None


class UsedToday(NamedTuple):
    """The tokens that each key has used on a ``day`` (since 1970, UTC)."""

    day: int
    tokens: dict[str, int]


async def _nobody() -> None:
    """Tell nobody."""


class Accounting:
    """A counter of requests and tokens. Counts from the start; writes once it has been opened."""

    def __init__(
        self,
        *,
        write_every: float = INTERVAL,
        keep_requests: float | None = None,
        max_requests: int = 200_000,
        max_requests_size: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        tasks: Tasks = of_nothing,
    ) -> None:
        self.limiter = Limiter(self.tokens_today, monotonic=monotonic, wall=wall)
        #: The requests that have ended, one by one.
        self.log = RequestLog(
            keep=keep_requests,
            most=max_requests,
            size=max_requests_size,
            write_every=write_every,
            wall=wall,
            tasks=tasks,
        )
        #: What metrics are made of.
        self.measures = RequestMeasures(monotonic=monotonic)
        #: Requests that have not ended, oldest first.
        self.open_requests: dict[Metering, None] = {}
        self._totals: dict[str, list[Any]] = {}  # the fields of a total, by model
        self._started = monotonic()
        self._monotonic = monotonic
        self.wall = wall
        #: Awaited before usage is written: where others have the same database, they hear of it
        #: first, so that none counts what it hears on top of what it has found there.
        self.before_writing: Callable[[], Awaitable[None]] = _nobody
        #: The tasks of requests whose clients hung up, and that llama-server still works on.
        self.abandoned_tasks = AbandonedTasks()
        self._interval = write_every
        self._store: Store | None = None
        # requests, tokens of prompts and of answers, cached tokens: by key, model, day (since 1970)
        self._unwritten: dict[tuple[str, str, int], list[int]] = {}
        self._today = 0
        self._tokens_today: dict[str, int] = {}  # by key, written or not
        self._counted = asyncio.Event()
        self._writing = asyncio.Lock()
        self._failing = False
        self._writer: asyncio.Task[None] | None = None
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._unsettled: set[asyncio.Task[int]] = set()

    async def open(self, store: Store) -> None:
        """Take up what was used today before a restart, and write to ``store`` from now on.

        ``store`` stays its owner's, and must be open until :meth:`close` is through.
        """
        self._store = store
        self.take_up(await self.used_today())
        self.log.open(store)
        self._writer = spawn_lasting(self._keep_writing, name="write usage")

    async def used_today(self) -> UsedToday:
        """Return what all gateways on the database have used today, as far as it is written."""
        assert self._store is not None
        day = int(self.wall()) // DAY
        found: dict[str, int] = {}
        for used in await self._store.usage_of(since=_date(day)):
            if used.day == _date(day):
                tokens = used.prompt_tokens + used.completion_tokens
                found[used.key_id] = found.get(used.key_id, 0) + tokens
        return UsedToday(day, found)

    def take_up(self, written: UsedToday) -> None:
        """Count what is ``written`` and wasn't known here."""
        day, found = written.day, dict(written.tokens)
        if day != int(self.wall()) // DAY:
            return
        for (key_id, _, counted), (_, prompt, completion, *_) in self._unwritten.items():
            if counted == day:
                found[key_id] = found.get(key_id, 0) + prompt + completion
        for key_id, tokens in found.items():
            self._count_today(day, key_id, max(tokens - self.tokens_today(key_id), 0))

    def count_elsewhere(self, key_id: str, tokens: int) -> None:
        """Count tokens that a key has used at another gateway, which writes them."""
        self._count_today(int(self.wall()) // DAY, key_id, tokens)

    async def close(self) -> None:
        """Write what is unwritten."""
        await cancel_and_wait(*self._unsettled)
        await self.abandoned_tasks.close()
        async with self._writing:  # so that no write is cut off
            await cancel_and_wait(self._writer)
        await self._write()
        await self.log.close()

    # --- for each request ------------------------------------------------------------------

    def add(self, *fields: Any) -> None:
        """Count a request that has ended: the fields of its :class:`Record`."""
        self.log.add(fields)
        self.measures.add(fields)
        at, key_id, model, _, _, (prompt, completion, cached, speed) = fields[:6]
        total = self._totals.get(model)
        if total is None:
            total = self._totals[model] = [*Total()]
        total[0] += 1
        total[1] += prompt
        total[2] += cached
        total[3] += completion
        if speed is not None:
            total[4] = speed
        day = int(at) // DAY
        slot = (key_id, model, day)
        counters = self._unwritten.get(slot)
        if counters is None:
            self._unwritten[slot] = [1, prompt, completion, cached]
            self._counted.set()
        else:
            counters[0] += 1
            counters[1] += prompt
            counters[2] += completion
            counters[3] += cached
        self._count_today(day, key_id, prompt + completion)

    def more(self, key_id: str, model: str, tokens: int) -> None:
        """Count tokens that were written for a request when it had been counted already."""
        day = int(self.wall()) // DAY
        counters = self._unwritten.setdefault((key_id, model, day), [0, 0, 0, 0])
        counters[2] += tokens
        if (total := self._totals.get(model)) is not None:
            total[3] += tokens
        self.measures.more(key_id, model, tokens)
        self._counted.set()
        self._count_today(day, key_id, tokens)

    @property
    def unsettled(self) -> int:
        """The number of ended requests whose tokens are still being counted."""
        return len(self._unsettled)

    def settle(
        self,
        count: Callable[[], Awaitable[int | None]] | None,
        guess: Callable[[], Awaitable[int]],
        settled: Callable[[int | None], None],
    ) -> None:
        """Count the tokens of a request that has ended, in the background, and call ``settled``
        with them.

        A few are counted at once; what can't be counted, or not in time, is guessed. Told is
        ``None`` where the gateway ends before it is known.
        """

        async def counting() -> int:
            tokens = None
            if count is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE), self._turns:
                        tokens = await count()
            return await guess() if tokens is None else tokens

        def ended(task: asyncio.Task[int]) -> None:
            self._unsettled.discard(task)
            failed = task.cancelled() or task.exception() is not None
            settled(None if failed else task.result())

        task = spawn(counting(), name="count the tokens of an answer that was hung up on")
        self._unsettled.add(task)
        task.add_done_callback(ended)

    @property
    def recent(self) -> list[Record]:
        """The last requests, the newest last."""
        return self.log.newest

    @property
    def under_way(self) -> list[UnderWay]:
        """The requests that have not ended, oldest first."""
        return [one.so_far() for one in self.open_requests]

    def total(self, model: str) -> Total:
        """Return what a model has done since the gateway started."""
        fields = self._totals.get(model)
        return Total() if fields is None else Total(*fields)

    @property
    def tokens(self) -> tuple[int, int]:
        """The tokens of all prompts and answers so far; for streams under way, roughly as many as
        have come.
        """
        totals = self._totals.values()
        under_way = sum(one.so_far().tokens for one in self.open_requests)
        return sum(each[1] for each in totals), sum(each[3] for each in totals) + under_way

    @property
    def seconds(self) -> float:
        """The seconds since counting began."""
        return self._monotonic() - self._started

    def tokens_today(self, key_id: str) -> int:
        """Return the tokens that the key has used since midnight, UTC."""
        if int(self.wall()) // DAY != self._today:
            return 0
        return self._tokens_today.get(key_id, 0)

    def _count_today(self, day: int, key_id: str, tokens: int) -> None:
        if day != self._today:
            self._today = day
            self._tokens_today.clear()
        self._tokens_today[key_id] = self._tokens_today.get(key_id, 0) + tokens

    # --- the store -------------------------------------------------------------------------

    async def usage(self, *, days: int, key_id: str | None = None) -> list[DailyUsage]:
        """Return the counters of today and the ``days - 1`` days before, of all keys or one.

        Ordered by day, key, model. Raises :class:`GatewayError` where the store can't be read, or
        somebody keeps it busy: what is being written is neither here nor there.
        """
        store = self._store
        if store is None:
            return []
        # A task of its own: the client may leave, and a write must not be cut off.
        write = spawn(self._write(), name="write usage")
        try:
            async with asyncio.timeout(_SOON):
                await asyncio.shield(write)
        except TimeoutError:
            raise Unavailable(
                "usage cannot be told now: the gateway's database is kept busy by another program",
                code="store_busy",
            ) from None
        since = _date(int(self.wall()) // DAY - days + 1)
        if not self._failing:
            return await store.usage_of(key_id, since=since)
        async with self._writing:  # so that what is unwritten stays so meanwhile
            return self._with_unwritten(await store.usage_of(key_id, since=since), key_id, since)

    def _with_unwritten(
        self, stored: list[DailyUsage], key_id: str | None, since: date
    ) -> list[DailyUsage]:
        from gateway.access.store import DailyUsage

        found = {(one.day, one.key_id, one.model): one for one in stored}
        for (key, model, number), counters in self._unwritten.items():
            day = _date(number)
            if day >= since and key_id in (None, key):
                before = found.get((day, key, model), DailyUsage(key, model, day))
                requests, prompt, completion, cached = counters
                found[day, key, model] = replace(
                    before,
                    requests=before.requests + requests,
                    prompt_tokens=before.prompt_tokens + prompt,
                    completion_tokens=before.completion_tokens + completion,
                    cached_tokens=before.cached_tokens + cached,
                )
        return [found[place] for place in sorted(found)]

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
            from gateway.access.store import DailyUsage  # imported when the store was opened

            self._unwritten = {}
            self._counted.clear()
            try:
                await self.before_writing()
                await store.add_usage(
                    DailyUsage(key_id, model, _date(day), *counters)
                    for (key_id, model, day), counters in batch.items()
                )
            except Exception as error:  # cancelled, the store would still go through with it
                self._take_back(batch)
                if not self._failing:
                    trace = None if isinstance(error, GatewayError) else error
                    _log.error(
                        "usage of keys cannot be written, trying again: %s", error, exc_info=trace
                    )
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


def _date(day: int) -> date:
    return date.fromordinal(_EPOCH + day)
