"""The log of ended requests to models: the newest in memory, all of them in the store for a while.

They are written in batches, behind the requests and off the event loop. Where that fails (a full
disk, a locked file) it is tried again with the next batch; what is too much to wait for that is
lost, counted, and told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.access.measures import ROUTES
from gateway.access.past_requests import CachedFrom, PastRequest, RequestFilter
from gateway.errors import GatewayError
from gateway.path_secrets import without_secrets
from gateway.proxy.sse import Usage
from gateway.tasks import cancel_and_wait, spawn, spawn_lasting

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.access.store
    from gateway.access.store import Store

#: Records kept in memory, for reports on what is going on.
RECENT: Final = 200
#: How many unwritten records are written at once, and how many may wait for that.
_BATCH: Final = 2000
MOST_UNWRITTEN: Final = 10_000
#: Seconds between two removals of records that have become too old.
_PRUNE: Final = 3600.0
#: Seconds that a query of the store waits for unwritten records, which are in memory anyway.
_PATIENCE: Final = 1.0
#: Bytes that a record usually takes in the store.
_USUAL: Final = 256
#: Characters of a route that are kept: a client may have made it up.
_ROUTE: Final = 200
_MICRO: Final = 1e6
_UNKNOWN: Final = (None, None)
_log = logging.getLogger(__name__)


class Record(NamedTuple):
    """A request to a model that has ended. Times in seconds; offsets count from its arrival.

    ``waited``: until its model had a slot for it, if it had to wait, ``loading`` of them while the
    model was loading; ``began``: until its answer began to come.
    """

    at: float  # when it ended, seconds since 1970
    key_id: str
    model: str
    personality: str | None
    status: int  # gateway.errors.CLIENT_GONE: the client went away
    usage: Usage
    seconds: float
    route: str  # its path at the backend
    id: str = ""
    method: str = "POST"
    streamed: bool = False
    code: str | None = None  # of the error that it ended with
    client: str | None = None
    sent: bool = False  # to a backend
    waited: float | None = None
    loading: float = 0.0
    began: float | None = None
    cached_from: CachedFrom | None = None

    def kept(self) -> PastRequest:
        """Return the record as it is stored where its task is not known."""
        return PastRequest(*_row(of_nothing, self))


#: The fields of a record. Few records are ever looked at, so the record itself is made on demand.
_Fields = tuple[Any, ...]
#: The id of a request -> its slot and task at llama-server, if they are known.
Tasks = Callable[[str], tuple[int, int] | None]


def _row(tasks: Tasks, fields: _Fields) -> tuple[Any, ...]:
    """Return the fields of its :class:`PastRequest`: once for each request, so as
    cheap as may be.
    """
    # fmt: off
    (at, key_id, model, personality, status, usage, seconds, route, request_id, method, streamed,
     code, client, sent, waited, loading, began, cached_from) = fields
    # fmt: on
    prompt, completion, cached, speed = usage
    if waited is None:
        waited = 0.0 if sent else seconds
    load = loading if loading < waited else waited
    prefill = generation = None
    if sent:
        generation = working = seconds - waited if seconds > waited else 0.0
        if streamed:
            prefill = working
            if began is not None and began - waited < working:
                prefill = began - waited if began > waited else 0.0
            generation = working - prefill
        elif speed and completion:
            # Its answer came in one piece, and included its speed.
            generation = completion / speed
            if generation > working:
                generation = working
            prefill = working - generation
    if route not in ROUTES:
        route = path_of(route)
    # fmt: off
    return (
        int(at * _MICRO), request_id, key_id, model, personality, method, route, streamed, status,
        code, client, seconds, waited - load, load, prefill, generation, prompt, cached,
        completion, speed, cached_from, *(tasks(request_id) or _UNKNOWN),
    )
    # fmt: on


def of_nothing(_request_id: str) -> None:
    """Know no task."""


def _newest_first(request: PastRequest) -> int:
    return -request.seq


def path_of(route: str) -> str:
    """Return a route as it is shown, without what may be a key in it."""
    return without_secrets(route)[:_ROUTE]


class Page(NamedTuple):
    """A page of past requests, the newest first; ``more``: there may be others."""

    requests: list[PastRequest]
    more: bool
    problem: str | None  # why some are missing, here or in the store
    unread: bool = False  # the store could not be read now


class RequestLog:
    """Requests that have ended. Works from the start; writes once it has been opened.

    ``keep``: seconds for which they stay in the store, at most ``most`` of them, and ``size`` bytes
    (``None``: no bound); ``keep`` is ``None``: none is written. ``tasks``: what is known of their
    tasks at llama-server by the time that they are looked at, or written.
    """

    def __init__(
        self,
        *,
        keep: float | None = None,
        most: int = 200_000,
        size: int | None = None,
        write_every: float = 10.0,
        wall: Callable[[], float] = time.time,
        tasks: Tasks = of_nothing,
    ) -> None:
        self._keep = keep
        self._most = most
        self._size = size
        #: How many may have come before it is looked whether they are too many.
        self._prune_after = (most if size is None else min(most, size // _USUAL)) // 20
        self._interval = write_every
        self._wall = wall
        self.tasks = tasks
        self._newest: deque[_Fields] = deque(maxlen=RECENT)
        #: How many requests have ended since the start.
        self.added = 0
        #: How many records could not be written.
        self.lost = 0
        self._seq = 0
        self._store: Store | None = None
        self._unwritten: deque[_Fields] = deque()
        #: The records that are being written: they may or may not be in the store yet.
        self._in_flight: deque[_Fields] = deque()
        self._some, self._many = asyncio.Event(), asyncio.Event()
        self._writing = asyncio.Lock()
        self._failing: str | None = None
        self._pruned = 0.0  # when, by the wall
        self._since_pruned = 0
        self._writer: asyncio.Task[None] | None = None

    def open(self, store: Store) -> None:
        """Write to ``store`` from now on, which must be open until :meth:`close` is through."""
        self._store = store
        self._writer = spawn_lasting(lambda: self._keep_writing(store), name="write requests")

    async def close(self) -> None:
        """Write what is unwritten."""
        async with self._writing:  # so that no write is cut off
            await cancel_and_wait(self._writer)
        await self.write()
        self._store = None

    # --- for each request ------------------------------------------------------------------

    def add(self, fields: tuple[Any, ...]) -> None:
        """Note one that has ended: the fields of its :class:`Record`."""
        seq = int(fields[0] * _MICRO)
        if self._seq - _MICRO < seq <= self._seq:  # not where the clock was put back
            seq = self._seq + 1
            # The middle of that microsecond: a float of our time is exact to a quarter of one.
            fields = ((seq + 0.5) / _MICRO, *fields[1:])
        self._seq = seq
        self._newest.append(fields)
        self.added += 1
        if self._keep is None:
            return
        unwritten = self._unwritten
        unwritten.append(fields)
        waiting = len(unwritten)
        if waiting == 1:
            self._some.set()
        elif waiting == _BATCH:
            self._many.set()
        elif waiting > MOST_UNWRITTEN:
            unwritten.popleft()
            self.lost += 1

    # --- looking ---------------------------------------------------------------------------

    @property
    def newest(self) -> list[Record]:
        """The last records, the newest last."""
        return [Record(*fields) for fields in self._newest]

    def since(self, added: int) -> list[PastRequest] | None:
        """Return those that have come since there were ``added`` of them, the newest first;
        ``None`` where they are more than are kept in memory.
        """
        new = self.added - added
        if new > len(self._newest):
            return None
        return [self._kept(fields) for fields in islice(reversed(self._newest), new)]

    async def page(self, wanted: RequestFilter) -> Page:
        """Return a page of the records that are ``wanted``, from memory if that is enough, else
        from the store.

        If the store can't be read now, the page has what is in memory.
        """
        found = sorted(self._wanted_of(self._newest, wanted), key=_newest_first)[: wanted.limit]
        store = self._store
        enough = len(found) == wanted.limit and not (store is not None and store.is_shared)
        if enough or store is None or self._keep is None:
            return Page(found, len(found) == wanted.limit, self.problem)
        await self._write_soon()
        unwritten = [*self._in_flight, *self._unwritten]
        if unwritten:
            found += await asyncio.to_thread(self._wanted_of, unwritten, wanted)
        problem, unread = self.problem, False
        try:
            found += await store.requests_of(wanted)
        except GatewayError as error:
            problem, unread = f"older requests cannot be read now: {error.message}", True
        # By their numbers: without a clock of its own, a machine may have started in the past, and
        # then what is in memory is not the newest.
        by_number = {one.seq: one for one in found}
        found = sorted(by_number.values(), key=_newest_first)[: wanted.limit]
        more = len(found) == wanted.limit or (unread and bool(found))
        return Page(found, more, problem, unread)

    def _kept(self, fields: _Fields) -> PastRequest:
        return PastRequest(*_row(self.tasks, fields))

    def _wanted_of(self, records: Iterable[_Fields], wanted: RequestFilter) -> list[PastRequest]:
        return [*filter(wanted.has, map(self._kept, records))]

    async def _write_soon(self) -> None:
        """Write what is unwritten, if that goes well and fast."""
        if self._failing is None:
            # A task of its own: the client may leave, and a write must not be cut off.
            write = spawn(self.write(), name="write requests")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await asyncio.shield(write)

    @property
    def kept(self) -> dict[str, float | None]:
        """For how many ``seconds`` records are kept (None: in memory only), and how many."""
        most = RECENT if self._keep is None else self._most
        return {"seconds": self._keep, "requests": most}

    @property
    def problem(self) -> str | None:
        """Why not all records are kept, if so."""
        return self._failing

    @property
    def unwritten(self) -> int:
        """The number of records that are not in the store yet, though they are to be."""
        return len(self._unwritten) + len(self._in_flight)

    @property
    def lag(self) -> float:
        """The age of the oldest of them, in seconds."""
        for waiting in (self._in_flight, self._unwritten):
            if waiting:
                return max(self._wall() - float(waiting[0][0]), 0.0)
        return 0.0

    # --- the store -------------------------------------------------------------------------

    async def _keep_writing(self, store: Store) -> None:
        await self._tidy(store)
        while True:
            if not self._unwritten:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PRUNE):
                        await self._some.wait()
            if self._unwritten:
                # The batch: what else comes in this time goes along.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._interval):
                        await self._many.wait()
            await self.write(prunes=True)

    async def _tidy(self, store: Store) -> None:
        """Remove the old records if no records are to be kept any more."""
        if self._keep is None:
            try:
                await store.clear_requests()
            except Exception as error:
                trace = None if isinstance(error, GatewayError) else error
                _log.warning(
                    "what is kept of requests cannot be removed: %s", error, exc_info=trace
                )

    async def write(self, *, prunes: bool = False) -> None:
        """Write what is unwritten; what fails stays unwritten, and is tried with the next."""
        async with self._writing:
            store, batch, now = self._store, self._unwritten, self._wall()
            if store is None or self._keep is None:
                return
            due = self._since_pruned > self._prune_after or abs(now - self._pruned) >= _PRUNE
            prunes = prunes and due
            if not batch and not prunes:
                return
            self._in_flight, self._unwritten = batch, deque()
            self._some.clear()
            self._many.clear()
            try:
                if batch:
                    await store.add_requests(map(partial(_row, self.tasks), batch))
            except Exception as error:  # cancelled, the store would still go through with it
                self._take_back(batch)
                self._failed(error)
            else:
                if self._failing is not None:
                    _log.info("requests are recorded again, %d were lost", self.lost)
                self._failing = None
                self._since_pruned += len(batch)
            finally:
                self._in_flight = deque()
            if prunes and self._failing is None:
                self._pruned, self._since_pruned = now, 0
                await self._prune(store, int((now - self._keep) * _MICRO))

    async def _prune(self, store: Store, since: int) -> None:
        try:
            await store.prune_requests(since, self._most, self._size)
        except Exception as error:  # it is tried again, with the next of them or in an hour
            trace = None if isinstance(error, GatewayError) else error
            _log.warning("old records of requests cannot be removed: %s", error, exc_info=trace)

    def _failed(self, error: Exception) -> None:
        """Log the failure once, and go on."""
        if self._failing is None:
            trace = None if isinstance(error, GatewayError) else error
            _log.warning("requests cannot be recorded, trying again: %s", error, exc_info=trace)
        self._failing = f"requests cannot be recorded: {error}"

    def _take_back(self, batch: deque[_Fields]) -> None:
        batch.extend(self._unwritten)
        self._unwritten = batch
        while len(batch) > MOST_UNWRITTEN:
            batch.popleft()
            self.lost += 1
        if batch:
            self._some.set()
