"""The part of the store that keeps responses and conversations.

Every method may raise what those of :class:`gateway.access.store.Store` do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import Connection

from gateway.access import stored_conversations, stored_responses
from gateway.access.database import Database
from gateway.access.stored_conversations import StoredConversation
from gateway.access.stored_responses import StoredItem, StoredResponse


class ResponseStore:
    """Responses and conversations in an open database."""

    def __init__(self, database: Database) -> None:
        self._read, self._write = database.read, database.write

    async def put_response(
        self, make: Callable[[], tuple[StoredResponse, list[StoredItem]]], *, again: bool = False
    ) -> None:
        """Keep what ``make`` returns, off the event loop: a response, and what it adds to its
        conversation. ``again``: unless it was kept before, and was deleted.
        """
        await self._write(lambda connection: stored_responses.put(connection, *make(), again=again))

    async def response_of(self, id: str, key_id: str) -> StoredResponse | None:
        """Return the response ``id`` of a key, if it has one."""
        return await self._read(lambda connection: stored_responses.find(connection, id, key_id))

    async def chain_of(self, id: str, key_id: str, most: int, size: int) -> list[StoredResponse]:
        """Return a response, and those that it goes on with, the first one first; at most so many,
        of hardly more bytes, and without their events. The first has a ``previous_id`` if that is
        missing.
        """
        return await self._read(
            lambda connection: stored_responses.chain(connection, id, key_id, most, size)
        )

    async def use_responses(
        self, ids: Sequence[str], conversation_id: str | None, before: int
    ) -> None:
        """Note that somebody goes on with them now, as far as nobody did since ``before``."""
        await self._write(
            lambda connection: stored_responses.touch(connection, ids, conversation_id, before)
        )

    async def delete_response(self, id: str, key_id: str) -> bool:
        """Delete a response of a key; return whether it was there."""
        return await self._write(lambda connection: stored_responses.remove(connection, id, key_id))

    async def responses_running_at(self, gateway: str) -> list[StoredResponse]:
        """Return those that a gateway worked on when it ended."""
        return await self._read(lambda connection: stored_responses.running_at(connection, gateway))

    async def items_of(self, conversation_id: str, key_id: str) -> list[StoredItem] | None:
        """Return the items of a conversation of a key, if it has one."""
        return await self._read(
            lambda connection: stored_responses.items(connection, conversation_id, key_id)
        )

    async def conversation_of(self, id: str, key_id: str) -> StoredConversation | None:
        """Return the conversation ``id`` of a key, if it has one."""
        return await self._read(partial(stored_conversations.find, id=id, key_id=key_id))

    async def add_conversation(
        self, id: str, key_id: str, told: dict[str, str], items: list[StoredItem]
    ) -> StoredConversation:
        """Keep a new conversation, with ``told`` as its metadata, and return it."""

        def add(connection: Connection) -> StoredConversation:
            stored_responses.add_conversation(connection, id, key_id, told, items)
            found = stored_conversations.find(connection, id, key_id)
            assert found is not None
            return found

        return await self._write(add)

    async def change_conversation(
        self, id: str, key_id: str, told: dict[str, str]
    ) -> StoredConversation | None:
        """Give a conversation of a key other metadata, and return it."""
        return await self._write(
            lambda connection: stored_conversations.change(connection, id, key_id, told)
        )

    async def delete_conversation(self, id: str, key_id: str) -> bool:
        """Delete a conversation of a key; return whether it was there."""
        return await self._write(partial(stored_conversations.remove, id=id, key_id=key_id))

    async def add_items(self, id: str, key_id: str, items: list[StoredItem]) -> bool:
        """Put items at the end of a conversation; return whether the key has it."""
        return await self._write(
            lambda connection: stored_responses.add_items(connection, id, key_id, items)
        )

    async def delete_item(self, id: str, item_id: str, key_id: str) -> bool | None:
        """Delete an item; return whether it was there, ``None`` if its conversation isn't."""
        return await self._write(
            lambda connection: stored_conversations.remove_item(connection, id, item_id, key_id)
        )

    async def prune_responses(self, before: int, size: int) -> None:
        """Forget responses and conversations that nobody used since ``before`` (microseconds since
        1970), and the least recently used where all take more than ``size`` bytes.
        """
        more = True
        while more:
            more = await self._write(
                lambda connection: stored_responses.prune(connection, before, size)
            )

    async def forget_responses(self, known: Callable[[str], bool]) -> int:
        """Forget those of keys that are not ``known``; return how many."""
        return await self._write(
            lambda connection: stored_responses.forget_others(connection, known)
        )
