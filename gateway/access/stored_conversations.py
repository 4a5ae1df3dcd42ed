"""Kept conversations in the database, besides what responses do with them. Only the store calls
this, within its transactions.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.sql.elements import ColumnElement

from gateway.access.schema import conversation_items, conversations
from gateway.access.stored_responses import now


class StoredConversation(NamedTuple):
    """A conversation without its items. ``created``: microseconds since 1970."""

    id: str
    created: int
    metadata: dict[str, str]


def find(connection: Connection, id: str, key_id: str) -> StoredConversation | None:
    """Return the conversation ``id``, if there is one and it is one of the key ``key_id``."""
    columns = conversations.c
    query = select(columns.id, columns.created, columns.metadata).where(_of(id, key_id))
    row = connection.execute(query).first()
    return None if row is None else StoredConversation(row.id, row.created, row.metadata or {})


def change(
    connection: Connection, id: str, key_id: str, metadata: dict[str, str]
) -> StoredConversation | None:
    """Give a conversation other metadata, and return it, if it is there."""
    values = {"metadata": metadata, "used": now()}
    connection.execute(update(conversations).where(_of(id, key_id)).values(values))
    return find(connection, id, key_id)


def remove(connection: Connection, id: str, key_id: str) -> bool:
    """Delete a conversation with its items; return whether it was there."""
    there = connection.execute(delete(conversations).where(_of(id, key_id))).rowcount > 0
    if there:
        items = conversation_items
        connection.execute(delete(items).where(items.c.conversation_id == id))
    return there


def remove_item(connection: Connection, id: str, item_id: str, key_id: str) -> bool | None:
    """Delete an item of a conversation; return whether it was there, ``None`` if that is not."""
    mine = update(conversations).where(_of(id, key_id)).values(used=now())
    if not connection.execute(mine).rowcount:
        return None
    columns = conversation_items.c
    this = (columns.conversation_id == id) & (columns.id == item_id)
    return connection.execute(delete(conversation_items).where(this)).rowcount > 0


def _of(id: str, key_id: str) -> ColumnElement[bool]:
    return (conversations.c.id == id) & (conversations.c.key_id == key_id)
