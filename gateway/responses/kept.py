"""Responses that are kept for their keys: those under way, and those in the store.

They are written behind the answers. Where that fails (a full disk, a locked file) they stay in
memory and it is tried again; what is too much to wait for that is lost, counted, and told once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.errors import BadRequest, GatewayError, NotFound, ShuttingDown, Unavailable
from gateway.responses.asked import Asked, JsonObject, listed
from gateway.responses.packing import pack, pack_events, unpack, unpack_events
from gateway.responses.work import Work
from gateway.streams.kept import KeptStreams
from gateway.tasks import cancel_and_wait, spawn, spawn_lasting

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.access.store
    from gateway.access.store import Store
    from gateway.access.stored_responses import StoredItem, StoredResponse

#: How many responses may be one conversation.
_LONGEST: Final = 2000
#: Seconds between two removals of what has become too old, or too much.
_PRUNE: Final = 600.0
#: Seconds until a failed write is tried again, and how many may wait for it.
_AGAIN: Final = 5.0
_MOST_UNWRITTEN: Final = 200
_MICRO: Final = 1e6
_log = logging.getLogger(__name__)


class Found(NamedTuple):
    """A kept response: itself, what it was asked, its events, and the work on it."""

    response: JsonObject
    items: list[JsonObject]
    previous: str | None
    events: bytes | None
    work: Work | None


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

    async def before(self, asked: Asked, key_id: str) -> list[JsonObject]:
        """Return the items that come before the input of a request of a key: of the responses, or
        of the conversation, that it goes on with.

        Raises :class:`BadRequest` and :class:`NotFound` for what there isn't.
        """
        if asked.previous is not None:
            return await self._items_of_chain(asked.previous, key_id, "previous_response_id")
        if asked.conversation is not None:
            items = await self.items_in(asked.conversation, key_id)
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
        waiting = self._unwritten_in(conversation)
        kept = await self.store.items_of(conversation, key_id)
        if kept is None:
            return None
        items: list[JsonObject] = await asyncio.to_thread(
            lambda: [unpack(item.item) for item in kept]
        )
        written = {item.id for item in kept}
        for work in waiting:
            items += [item for item in _said(work) if item["id"] not in written]
        return items

    async def settle(self, conversation: str) -> None:
        """Write what was said in a conversation, if that can be done now."""
        if self._unwritten_in(conversation):
            await self._write_all(self.store)

    def _unwritten_in(self, conversation: str) -> list[Work]:
        works = self._unwritten.values()
        return [work for work in works if work.asked.conversation == conversation]

    async def _items_of_chain(self, id: str, key_id: str, param: str) -> list[JsonObject]:
        late: list[list[JsonObject]] = []
        wanted: str | None = id
        while wanted is not None and (work := self._own_work(wanted, key_id)) is not None:
            if not work.over:
                raise BadRequest(
                    f"the response {wanted!r} is still {work.response['status'].replace('_', ' ')}",
                    param=param,
                    code="response_not_finished",
                )
            late.append([*work.items, *work.response["output"]])
            wanted = work.asked.previous
        early: list[JsonObject] = []
        if wanted is not None:
            chain = await self.store.chain_of(wanted, key_id, _LONGEST)
            missing = wanted if not chain else chain[0].previous_id
            if missing is not None:
                raise BadRequest(
                    f"this key has no response {missing[:100]!r}"
                    + ("" if missing == id else f", with which {id!r} begins"),
                    param=param,
                    code="previous_response_not_found",
                )
            self._note_use([each.id for each in chain], None)
            early = await asyncio.to_thread(_items_of, chain)
        return early + [item for items in reversed(late) for item in items]

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
        while len(self._unwritten) > _MOST_UNWRITTEN:
            oldest = next(iter(self._unwritten))
            del self._unwritten[oldest]
            self._works.pop(oldest, None)
            self.lost += 1
        self._some.set()

    async def announce(self, work: Work) -> None:
        """Keep ``work`` as it is now: whoever asks after a restart is told that it was begun."""
        try:
            await self.store.put_response(lambda: (self._stored(work, self._name), []))
        except GatewayError as error:
            self._warn(error)

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
            raise _not_found(id)
        return await asyncio.to_thread(_found, kept)

    async def inputs(self, found: Found, key_id: str) -> list[JsonObject]:
        """Return all items that a response was asked with, as they are listed, the first first."""
        items = found.items
        if found.previous is not None:
            before = await self._items_of_chain(found.previous, key_id, "response_id")
            items = [*before, *items]
        return listed(items, str(found.response["id"]))

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
            raise _not_found(id)

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
        return work if work is not None and work.key_id == key_id else None

    @property
    def store(self) -> Store:
        """Where they are kept."""
        if self._store is None:
            raise Unavailable("the responses that are kept cannot be read yet")
        return self._store

    def _note_use(self, ids: list[str] | tuple[()], conversation: str | None) -> None:
        store = self.store

        async def note() -> None:
            try:
                await store.use_responses(ids, conversation)
            except GatewayError as error:
                self._warn(error)

        self._spawn(note(), "note the use of responses")

    def _spawn(self, work: Any, name: str) -> None:
        task = spawn(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
        for work in [*self._unwritten.values()]:
            try:
                await store.put_response(lambda work=work: self._both(work))  # type: ignore[misc]
            except GatewayError as error:
                self._warn(error)
                return False
            self._failing = False
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

    def _both(self, work: Work) -> tuple[StoredResponse, list[StoredItem]]:
        from gateway.access.stored_responses import StoredItem

        items: list[StoredItem] = []
        if work.asked.conversation is not None:
            items = [StoredItem(item["id"], pack(item)) for item in _said(work)]
        return self._stored(work, None), items

    def _stored(self, work: Work, running: str | None) -> StoredResponse:
        from gateway.access.stored_responses import StoredResponse

        recording, events = work.recording, None
        if running is None and recording is not None and not recording.lost:
            events = pack_events(recording.pieces, chunked=recording.chunked)
        return StoredResponse(
            work.id,
            work.key_id,
            int(work.created * _MICRO),
            work.asked.previous,
            work.asked.conversation,
            running,
            pack(work.response),
            pack(work.items),
            events,
        )

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
            before = now() - int(self._max_age * _MICRO)
            try:
                await store.prune_responses(before, self._max_size)
            except GatewayError as error:
                _log.warning("old responses are not removed: %s", error.message)
            await asyncio.sleep(_PRUNE)


def _said(work: Work) -> list[JsonObject]:
    """Return what was asked and answered, as it is listed."""
    return listed([*work.items, *work.response["output"]], work.id)


def _items_of(chain: list[StoredResponse]) -> list[JsonObject]:
    items: list[JsonObject] = []
    for kept in chain:
        items += unpack(kept.input)
        items += unpack(kept.response)["output"]
    return items


def _found(kept: StoredResponse) -> Found:
    events = None if kept.events is None else unpack_events(kept.events)
    return Found(unpack(kept.response), unpack(kept.input), kept.previous_id, events, None)


def _not_found(id: str) -> NotFound:
    return NotFound(
        f"this key has no response {id[:100]!r}", code="response_not_found", param="response_id"
    )
