"""Kept responses and conversations in the database. Only the store calls this, within its
transactions.

What a client said and was answered comes packed: this knows nothing of it but its size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Select, delete, func, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from gateway.access.schema import conversation_items, conversations, responses

#: How many are deleted in one transaction: some milliseconds.
DELETED_AT_ONCE: Final = 200
#: How many are named in one statement.
_AT_ONCE: Final = 500
_MICRO: Final = 1e6
_DAY: Final = int(86_400 * _MICRO)
#: What a row takes besides what is packed.
_ROW: Final = 400


class StoredResponse(NamedTuple):
    """A kept response. ``created``: microseconds since 1970; ``running``: the gateway that works on
    it. ``response``, ``input`` and ``events`` are packed.
    """

    id: str
    key_id: str
    created: int
    previous_id: str | None
    conversation_id: str | None
    running: str | None
    response: bytes
    input: bytes
    events: bytes | None = None

    @property
    def size(self) -> int:
        """The bytes that it takes."""
        return _ROW + len(self.response) + len(self.input) + len(self.events or b"")


class StoredItem(NamedTuple):
    """An item of a conversation, packed."""

    id: str
    item: bytes


def now() -> int:
    """Return the time in microseconds since 1970."""
    return int(time.time() * _MICRO)


def put(
    connection: Connection,
    kept: StoredResponse,
    items: Iterable[StoredItem] = (),
    *,
    again: bool = False,
) -> None:
    """Keep a response in place of what was kept of it, and add ``items`` to its conversation, if
    that is still there. ``again``: not if it was deleted since it was kept, by another gateway.
    """
    there = connection.execute(delete(responses).where(responses.c.id == kept.id)).rowcount
    if again and not there:
        return
    row = {**kept._asdict(), "used": now(), "bytes": kept.size}
    connection.execute(insert(responses), [row])
    if kept.conversation_id is not None:
        add_items(connection, kept.conversation_id, kept.key_id, items)


def find(connection: Connection, id: str, key_id: str) -> StoredResponse | None:
    """Return the response ``id``, if there is one and it is one of the key ``key_id``."""
    return _one(connection, _of(id, key_id))


def _of(id: str, key_id: str) -> ColumnElement[bool]:
    return (responses.c.id == id) & (responses.c.key_id == key_id)


def _one(connection: Connection, where: ColumnElement[bool]) -> StoredResponse | None:
    row = connection.execute(_COLUMNS.where(where)).first()
    return None if row is None else StoredResponse(*row)


_COLUMNS: Final[Select[Any]] = select(*(responses.c[name] for name in StoredResponse._fields))


def chain(
    connection: Connection, id: str, key_id: str, most: int, size: int
) -> list[StoredResponse]:
    """Return the response ``id`` and those that it goes on with, the first one first, without their
    events; at most ``most``, and no more behind ``size`` bytes. The first has a ``previous_id`` if
    that is missing.
    """
    found: list[StoredResponse] = []
    seen: set[str] = set()
    columns = [responses.c[name] for name in StoredResponse._fields if name != "events"]
    wanted: str | None = id
    while wanted is not None and wanted not in seen and len(found) < most and size >= 0:
        seen.add(wanted)
        row = connection.execute(select(*columns).where(_of(wanted, key_id))).first()
        if row is None:
            break
        found.append(StoredResponse(*row))
        size -= found[-1].size
        wanted = found[-1].previous_id
    return found[::-1]


def touch(
    connection: Connection, ids: Sequence[str], conversation_id: str | None, before: int
) -> None:
    """Note that somebody goes on with these: they are kept as long as that.

    Those that were used since ``before`` stay as they are: SQLite writes whole rows, with all that
    was said, and each turn of a conversation uses all of them.
    """
    for start in range(0, len(ids), _AT_ONCE):
        some = responses.c.id.in_(ids[start : start + _AT_ONCE]) & (responses.c.used < before)
        connection.execute(update(responses).where(some).values(used=now()))
    if conversation_id is not None:
        this = conversations.c.id == conversation_id
        connection.execute(update(conversations).where(this).values(used=now()))


def remove(connection: Connection, id: str, key_id: str) -> bool:
    """Delete a response; return whether it was there."""
    return connection.execute(delete(responses).where(_of(id, key_id))).rowcount > 0


def running_at(connection: Connection, gateway: str) -> list[StoredResponse]:
    """Return those that a gateway worked on."""
    query = _COLUMNS.where(responses.c.running == gateway)
    return [StoredResponse(*row) for row in connection.execute(query)]


# --- conversations -------------------------------------------------------------------------


def items(connection: Connection, id: str, key_id: str) -> list[StoredItem] | None:
    """Return the items of a conversation, in their order, if it is there and the key's own."""
    mine = (conversations.c.id == id) & (conversations.c.key_id == key_id)
    if connection.execute(select(conversations.c.id).where(mine)).first() is None:
        return None
    columns = conversation_items.c
    query = (
        select(columns.id, columns.item).where(columns.conversation_id == id).order_by(columns.seq)
    )
    return [StoredItem(*row) for row in connection.execute(query)]


def add_items(connection: Connection, id: str, key_id: str, new: Iterable[StoredItem]) -> bool:
    """Put items at the end of a conversation; return whether it is there, and the key's own."""
    columns = conversation_items.c
    mine = (conversations.c.id == id) & (conversations.c.key_id == key_id)
    there = connection.execute(update(conversations).where(mine).values(used=now())).rowcount
    if not there:
        return False
    last = connection.execute(select(func.max(columns.seq)).where(columns.conversation_id == id))
    first = (last.scalar_one() or 0) + 1
    rows = [
        {
            "conversation_id": id,
            "seq": seq,
            "id": each.id,
            "bytes": _ROW + len(each.item),
            "item": each.item,
        }
        for seq, each in enumerate(new, first)
    ]
    if rows:
        connection.execute(insert(conversation_items), rows)
    return True


def add_conversation(
    connection: Connection, id: str, key_id: str, metadata: dict[str, str], new: list[StoredItem]
) -> None:
    """Keep a new conversation with these items."""
    row = {"id": id, "key_id": key_id, "created": now(), "used": now(), "metadata": metadata}
    connection.execute(insert(conversations), [row])
    add_items(connection, id, key_id, new)


# --- what goes -----------------------------------------------------------------------------


def prune(connection: Connection, before: int, size: int) -> bool:
    """Delete some of those that nobody used since ``before`` (microseconds since 1970), or that are
    the least recently used where all take more than ``size`` bytes. Return whether there are more.
    """
    goes = _old(connection, before)
    if not goes:
        goes = _beyond(connection, size)
    for kind, id in goes:
        if kind is responses:
            connection.execute(delete(responses).where(responses.c.id == id))
        else:
            _delete_conversations(connection, conversations.c.id == id)
    return bool(goes)


def _old(connection: Connection, before: int) -> list[tuple[Any, str]]:
    found: list[tuple[Any, str]] = []
    for table in (responses, conversations):
        query = select(table.c.id).where(table.c.used < before).limit(DELETED_AT_ONCE)
        if table is responses:  # of a gateway that never came back, they go later
            columns = responses.c
            query = query.where(columns.running.is_(None) | (columns.used < before - _DAY))
        found += [(table, id) for id in connection.execute(query).scalars()]
    return found[:DELETED_AT_ONCE]


def _beyond(connection: Connection, size: int) -> list[tuple[Any, str]]:
    over = _sum(connection, responses.c.bytes) + _sum(connection, conversation_items.c.bytes) - size
    if over <= 0:
        return []
    of_items = (
        select(func.coalesce(func.sum(conversation_items.c.bytes), 0))
        .where(conversation_items.c.conversation_id == conversations.c.id)
        .scalar_subquery()
    )
    candidates: list[tuple[int, int, Any, str]] = []
    for table, query in (
        (responses, select(responses.c.used, responses.c.bytes, responses.c.id)),
        (conversations, select(conversations.c.used, of_items, conversations.c.id)),
    ):
        oldest = query.order_by(table.c.used).limit(DELETED_AT_ONCE)
        if table is responses:
            oldest = oldest.where(responses.c.running.is_(None))
        rows = connection.execute(oldest)
        candidates += [(used, int(taken), table, id) for used, taken, id in rows]
    goes: list[tuple[Any, str]] = []
    for _, taken, table, id in sorted(candidates, key=lambda each: each[0])[:DELETED_AT_ONCE]:
        if over <= 0:
            break
        goes.append((table, id))
        over -= taken
    return goes


def _sum(connection: Connection, column: ColumnElement[int]) -> int:
    return int(connection.execute(select(func.coalesce(func.sum(column), 0))).scalar_one())


def forget_others(connection: Connection, known: Callable[[str], bool]) -> int:
    """Delete what is kept of keys that are not ``known``; return how many responses."""
    gone: set[str] = set()
    for table in (responses, conversations):
        ids = connection.execute(select(table.c.key_id).distinct()).scalars()
        gone |= {id for id in ids if not known(id)}
    return _forget(connection, gone) if gone else 0


def _forget(connection: Connection, key_ids: Collection[str]) -> int:
    _delete_conversations(connection, conversations.c.key_id.in_(key_ids))
    return connection.execute(delete(responses).where(responses.c.key_id.in_(key_ids))).rowcount


def _delete_conversations(connection: Connection, which: ColumnElement[bool]) -> None:
    ids = select(conversations.c.id).where(which)
    connection.execute(
        delete(conversation_items).where(conversation_items.c.conversation_id.in_(ids))
    )
    connection.execute(delete(conversations).where(which))
