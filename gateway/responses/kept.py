"""Responses that are kept for their keys: those under way, and those in the store.

They are written behind the answers. Where that fails (a full disk, a locked file) they stay in
memory and it is tried again; what is too much to wait for that is lost, counted, and told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import BadRequest, GatewayError, NotFound, ShuttingDown, Unavailable
from gateway.responses.asked import Asked, JsonObject, listed
from gateway.responses.found import Found, found_in, not_found, said_in, unfinished
from gateway.responses.packing import pack, unpack, unpack_texts
from gateway.responses.taken import inner, parsed
from gateway.responses.work import Work, said
from gateway.streams.kept import KeptStreams
from gateway.tasks import cancel_and_wait, spawn, spawn_lasting

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.access.store
    from gateway.access.store import Store

#: How many responses may be one conversation.
_LONGEST: Final = 2000
#: Seconds between two removals of what has become too old, or too much.
_PRUNE: Final = 600.0
#: Seconds until a failed write is tried again, and how many may wait for it.
_AGAIN: Final = 5.0
_MOST_UNWRITTEN: Final = 200
_MOST_BYTES: Final = 128 * 2**20
#: Seconds that an answer waits until it is written that its response was begun.
_PATIENCE: Final = 1.0
#: Seconds, and the share of ``max_age``, within which a second use is not noted.
_RECENT: Final = 3600.0
_RECENT_SHARE: Final = 0.1
#: What is removed early: as soon as this share of ``max_size`` was written.
_WRITTEN_SHARE: Final = 1 / 16
_MICRO: Final = 1e6
_log = logging.getLogger(__name__)


class KeptResponses:
    """Those of one gateway, ``name``d so that it knows its own in a database of several.

    Nothing stays for longer than ``max_age`` seconds after its last use, and no more than
    ``max_size`` bytes. ``streams``: the recordings of those under way.
    """

    def __init__(self, *, max_age: float, max_size: int, name: str, streams: KeptStreams) -> None:
        self.streams = streams
        self._max_age = max_age
        self._max_size = max_size
        self._name = name
        self._store: Store | None = None
        self._works: dict[str, Work] = {}  # under way, or not written yet
        self._unwritten: dict[str, Work] = {}
        self._some = asyncio.Event()
        self._written = 0  # bytes since what is too much was removed
        self._much = asyncio.Event()
        self._writing = asyncio.Lock()
        self._background: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_work: set[asyncio.Task[None]] = set()
        self._failing = False
        #: How many could not be kept.
        self.lost = 0

    async def open(self, store: Store) -> None:
        """Keep them in ``store`` from now on, which must be open until :meth:`close` is through.

        What this gateway worked on when it ended is told as failed.
        """
        self._store = store
        try:
            await self._end_interrupted(store)
        except GatewayError as error:
            _log.warning("responses that were interrupted are not marked: %s", error.message)
        self._background = [
            spawn_lasting(lambda: self._keep_writing(store), name="write responses"),
            spawn_lasting(lambda: self._keep_pruning(store), name="forget old responses"),
        ]

    async def end_all(self) -> None:
        """End the work in the background: the gateway is about to end. It is kept as failed."""
        for work in [*self._works.values()]:
            if work.end_work is not None and not work.over:
                work.end_work(ShuttingDown())
        if self._at_work:
            await asyncio.wait(self._at_work)

    async def close(self) -> None:
        """Write what is unwritten, if that can be done now."""
        await cancel_and_wait(*self._background, *self._tasks)
        if self._store is not None and self._unwritten:
            await self._write_all(self._store)
        self._store = None
        self.streams.close()

    # --- for each request ------------------------------------------------------------------

    async def before(self, asked: Asked, key_id: str, most: int) -> list[bytes]:
        """Return the items that come before the input of a request of a key: of the responses, or
        of the conversation, that it goes on with. Those in the store may have ``most`` bytes. Each
        is several, as JSON with commas between them.

        Raises :class:`BadRequest` and :class:`NotFound` for what there isn't, and
        :class:`PayloadTooLarge`.
        """
        if asked.previous is not None:
            param = "previous_response_id"
            return await self._items_of_chain(asked.previous, key_id, param, most)
        if asked.conversation is not None:
            items = await self._texts_in(asked.conversation, key_id, most)
            if items is None:
                raise NotFound(
                    f"this key has no conversation {asked.conversation!r}",
                    code="conversation_not_found",
                    param="conversation",
                )
            self._note_use((), asked.conversation)
            return items
        return []

    async def items_in(self, conversation: str, key_id: str) -> list[JsonObject] | None:
        """Return what was said in a conversation of a key, the first first, if it has that; with
        what isn't written yet.
        """
        items = await self._texts_in(conversation, key_id, None)
        return None if items is None else await asyncio.to_thread(parsed, items)

    async def _texts_in(
        self, conversation: str, key_id: str, most: int | None
    ) -> list[bytes] | None:
        """Return the same as JSON, one by one. Raises :class:`PayloadTooLarge` for more than
        ``most`` bytes.
        """
        waiting = self._unwritten_in(conversation)
        kept = await self.store.items_of(conversation, key_id)
        if kept is None:
            return None
        items = await asyncio.to_thread(unpack_texts, [item.item for item in kept], most)
        written = {item.id for item in kept}
        for work in waiting:
            items += [text for id, text in said(work) if id not in written]
        return items

    async def settle(self, conversation: str) -> None:
        """Write what was said in a conversation, if that can be done now."""
        if self._unwritten_in(conversation):
            await self._write_all(self.store)

    def _unwritten_in(self, conversation: str) -> list[Work]:
        works = self._unwritten.values()
        return [work for work in works if work.asked.conversation == conversation]

    async def _items_of_chain(self, id: str, key_id: str, param: str, most: int) -> list[bytes]:
        late: list[bytes] = []  # the last first
        wanted: str | None = id
        while wanted is not None and (work := self._own_work(wanted, key_id)) is not None:
            if not work.over:
                raise unfinished(wanted, work.response["status"], param)
            late += (inner(work.response["output"]), work.items)
            wanted = work.asked.previous
        early: list[bytes] = []
        if wanted is not None:
            chain = await self.store.chain_of(wanted, key_id, _LONGEST, 2 * most)
            if any(each.running is not None for each in chain):  # at another gateway
                raise unfinished(id, "in progress", param)
            early = await asyncio.to_thread(said_in, chain, most)
            missing = wanted if not chain else chain[0].previous_id
            if missing is not None:
                raise BadRequest(
                    f"this key has no response {missing[:100]!r}"
                    + ("" if missing == id else f", with which {id!r} begins"),
                    param=param,
                    code="previous_response_not_found",
                )
            self._note_use([each.id for each in chain], None)
        return early + late[::-1]

    @property
    def under_way(self) -> int:
        """How many are under way, or not written yet."""
        return len(self._works)

    def begin(self, work: Work) -> None:
        """Let ``work`` be found from now on, until :meth:`finish`."""
        if work.asked.store:
            self._works[work.id] = work

    def finish(self, work: Work, *, discard: bool = False) -> None:
        """Keep ``work``, on which nothing more comes; ``discard``: forget it."""
        work.ended()
        if discard or work.deleted or not work.asked.store:
            self._works.pop(work.id, None)
            return
        self._unwritten[work.id] = work
        while len(self._unwritten) > _MOST_UNWRITTEN or (
            len(self._unwritten) > 1
            and sum(each.size for each in self._unwritten.values()) > _MOST_BYTES
        ):
            oldest = next(iter(self._unwritten))
            del self._unwritten[oldest]
            self._works.pop(oldest, None)
            self.lost += 1
        self._some.set()

    async def announce(self, work: Work) -> None:
        """Keep ``work`` as it is now: whoever asks after a restart is told that it was begun.

        A database that doesn't take it holds nobody up.
        """
        from gateway.responses.rows import row_of

        store, begun = self.store, partial(row_of, work, self._name)

        async def put() -> None:
            try:
                await store.put_response(lambda: (begun(), []))
                work.announced = True
            except GatewayError as error:
                self._warn(error)

        await asyncio.wait(
            (self._spawn(put(), "note a response in the background"),), timeout=_PATIENCE
        )

    def in_background(self, task: asyncio.Task[None]) -> None:
        """Let ``task`` work on a response until it is done, or the gateway ends."""
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    # --- what is kept ----------------------------------------------------------------------

    async def find(self, id: str, key_id: str) -> Found:
        """Return the response ``id`` of a key. Raises :class:`NotFound`."""
        if (work := self._own_work(id, key_id)) is not None:
            return Found(work.response, work.items, work.asked.previous, None, work)
        kept = await self.store.response_of(id, key_id)
        if kept is None:
            raise not_found(id)
        return await asyncio.to_thread(found_in, kept)

    async def inputs(self, found: Found, key_id: str, most: int) -> list[JsonObject]:
        """Return all items that a response was asked with, as they are listed, the first first.

        Raises what :meth:`before` does.
        """
        items = [found.items]
        if found.previous is not None:
            before = await self._items_of_chain(found.previous, key_id, "response_id", most)
            items = [*before, *items]
        id = str(found.response["id"])
        return await asyncio.to_thread(lambda: listed(parsed(items), id))

    async def delete(self, id: str, key_id: str) -> None:
        """Delete the response ``id`` of a key, and end the work on it. Raises :class:`NotFound`."""
        work = self._own_work(id, key_id)
        if work is not None:
            work.deleted = True
            work.cancel()
            del self._works[id]
            self._unwritten.pop(id, None)
        there = await self.store.delete_response(id, key_id)
        if work is None and not there:
            raise not_found(id)

    async def forget_others(self, known: Callable[[str], bool]) -> None:
        """Forget what is kept of keys that are not ``known`` any more."""
        for work in [*self._works.values()]:
            if not known(work.key_id):
                work.deleted = True
                work.cancel()
                self._unwritten.pop(work.id, None)
                self._works.pop(work.id, None)
        if self._store is not None:
            try:
                count = await self._store.forget_responses(known)
            except GatewayError as error:
                _log.warning("responses of keys that are gone are not removed: %s", error.message)
            else:
                if count:
                    _log.info("removed %d responses of keys that are gone", count)

    def forget_others_soon(self, known: Callable[[str], bool]) -> None:
        """Do the same behind what goes on now."""
        self._spawn(self.forget_others(known), "forget responses of keys that are gone")

    def _own_work(self, id: str, key_id: str) -> Work | None:
        work = self._works.get(id)
        if work is None or work.key_id != key_id:
            return None
        work.look()
        return work

    @property
    def store(self) -> Store:
        """Where they are kept."""
        if self._store is None:
            raise Unavailable("the responses that are kept cannot be read yet")
        return self._store

    def _note_use(self, ids: list[str] | tuple[()], conversation: str | None) -> None:
        from gateway.access.stored_responses import now

        store, recent = self.store, min(_RECENT, self._max_age * _RECENT_SHARE)
        before = now() - int(recent * _MICRO)

        async def note() -> None:
            try:
                await store.use_responses(ids, conversation, before)
            except GatewayError as error:
                self._warn(error)

        self._spawn(note(), "note the use of responses")

    def _spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        task = spawn(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- writing ---------------------------------------------------------------------------

    async def _keep_writing(self, store: Store) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            if not await self._write_all(store):
                await asyncio.sleep(_AGAIN)
                self._some.set()

    async def _write_all(self, store: Store) -> bool:
        """Write what is unwritten; return whether that went well."""
        async with self._writing:
            return await self._write_each(store)

    async def _write_each(self, store: Store) -> bool:
        from gateway.responses.rows import rows_of

        for work in [*self._unwritten.values()]:
            try:
                await store.put_response(
                    partial(rows_of, work),
                    again=work.announced,
                )
            except GatewayError as error:
                self._warn(error)
                return False
            self._failing = False
            self._written += work.size
            if self._written > self._max_size * _WRITTEN_SHARE:
                self._much.set()
            if work.deleted:  # while it was written
                await store.delete_response(work.id, work.key_id)
            self._unwritten.pop(work.id, None)
            if self._works.get(work.id) is work:
                del self._works[work.id]
        return True

    def _warn(self, error: GatewayError) -> None:
        if not self._failing:
            self._failing = True
            _log.warning("responses cannot be kept: %s", error.message)

    async def _end_interrupted(self, store: Store) -> None:
        for kept in await store.responses_running_at(self._name):
            response = await asyncio.to_thread(unpack, kept.response)
            response["status"] = "failed"
            response["error"] = {
                "code": "server_error",
                "message": "the gateway was restarted before this response was complete",
            }
            ended = kept._replace(response=pack(response), running=None)
            await store.put_response(lambda ended=ended: (ended, []))  # type: ignore[misc]

    async def _keep_pruning(self, store: Store) -> None:
        from gateway.access.stored_responses import now

        while True:
            self._written = 0
            self._much.clear()
            before = now() - int(self._max_age * _MICRO)
            try:
                await store.prune_responses(before, self._max_size)
            except GatewayError as error:
                _log.warning("old responses are not removed: %s", error.message)
                await asyncio.sleep(_AGAIN)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PRUNE):
                    await self._much.wait()
