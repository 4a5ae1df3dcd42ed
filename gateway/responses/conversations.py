"""Conversations that are kept for their keys: what is said in them, and who may read it.

They stand in the same database as responses, and are kept as long.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import BadRequest, NotFound
from gateway.responses.asked import JsonObject, check_metadata, listed
from gateway.responses.kept import KeptResponses
from gateway.responses.packing import pack

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.access.store
    from gateway.access.stored_conversations import StoredConversation
    from gateway.access.stored_responses import StoredItem

_MICRO: Final = 1_000_000
#: How many items may come at a time.
_MOST: Final = 500
#: What ids of items begin with, by their type.
_PREFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
)


class KeptConversations:
    """Those of all keys. ``responses`` knows what was said and isn't written yet."""

    def __init__(self, responses: KeptResponses) -> None:
        self._responses = responses

    async def create(self, key_id: str, items: Sequence[JsonObject], metadata: Any) -> JsonObject:
        """Return a new conversation, which begins with ``items``. Raises :class:`BadRequest`."""
        told = check_metadata(metadata)
        id = f"conv_{secrets.token_hex(24)}"
        store = self._responses.store
        new = [_stored(item) for item in items]
        return _told(await store.add_conversation(id, key_id, told, new))

    async def find(self, id: str, key_id: str) -> JsonObject:
        """Return the conversation ``id`` of a key. Raises :class:`NotFound`."""
        found = await self._responses.store.conversation_of(id, key_id)
        if found is None:
            raise not_found(id)
        return _told(found)

    async def change(self, id: str, key_id: str, metadata: Any) -> JsonObject:
        """Give a conversation other metadata, and return it."""
        told = check_metadata(metadata)
        changed = await self._responses.store.change_conversation(id, key_id, told)
        if changed is None:
            raise not_found(id)
        return _told(changed)

    async def delete(self, id: str, key_id: str) -> None:
        """Delete a conversation. Responses that were given in it stay."""
        if not await self._responses.store.delete_conversation(id, key_id):
            raise not_found(id)

    async def items(self, id: str, key_id: str) -> list[JsonObject]:
        """Return what was said in a conversation, the first first."""
        found = await self._responses.items_in(id, key_id)
        if found is None:
            raise not_found(id)
        return found

    async def add(self, id: str, key_id: str, items: Sequence[JsonObject]) -> list[JsonObject]:
        """Put items at the end of a conversation, and return them as they are listed."""
        await self._responses.settle(id)
        new = [_stored(item) for item in items]
        if not await self._responses.store.add_items(id, key_id, new):
            raise not_found(id)
        return list(items)

    async def item(self, id: str, item_id: str, key_id: str) -> JsonObject:
        """Return one item of a conversation."""
        for item in await self.items(id, key_id):
            if item["id"] == item_id:
                return item
        raise _no_item(id, item_id)

    async def delete_item(self, id: str, item_id: str, key_id: str) -> JsonObject:
        """Delete one item, and return its conversation."""
        await self._responses.settle(id)
        there = await self._responses.store.delete_item(id, item_id, key_id)
        if there is None:
            raise not_found(id)
        if not there:
            raise _no_item(id, item_id)
        return await self.find(id, key_id)


def items_of(given: Any) -> list[JsonObject]:
    """Return the items that a client gives, with ids of our own. Raises :class:`BadRequest`."""
    if not isinstance(given, list) or not all(_is_item(item) for item in given):
        raise BadRequest(
            "`items` must be a list of items: each with a `type`, or with a `role` and `content`",
            param="items",
        )
    if len(given) > _MOST:
        raise BadRequest(f"`items` may be {_MOST} at a time", param="items")
    bare = [{name: item[name] for name in item if name != "id"} for item in given]
    return [{**item, "id": _new_id(item)} for item in listed(bare, "")]


def _is_item(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    if item.get("type", "message") == "message":
        return isinstance(item.get("role"), str) and isinstance(item.get("content"), str | list)
    return isinstance(item["type"], str)


def _new_id(item: JsonObject) -> str:
    return f"{_PREFIXES.get(item['type'], 'item')}_{secrets.token_hex(20)}"


def _stored(item: JsonObject) -> StoredItem:
    from gateway.access.stored_responses import StoredItem

    return StoredItem(item["id"], pack(item))


def _told(kept: StoredConversation) -> JsonObject:
    return {
        "id": kept.id,
        "object": "conversation",
        "created_at": kept.created // _MICRO,
        "metadata": kept.metadata,
    }


def not_found(id: str) -> NotFound:
    """Return the error for a conversation that its key does not have."""
    return NotFound(
        f"this key has no conversation {id[:100]!r}",
        code="conversation_not_found",
        param="conversation_id",
    )


def _no_item(id: str, item_id: str) -> NotFound:
    return NotFound(
        f"the conversation {id[:100]!r} has no item {item_id[:100]!r}",
        code="item_not_found",
        param="item_id",
    )
