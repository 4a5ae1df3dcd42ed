"""The conversation of a request: for a model whose slots are saved (``cache`` in gateway.yaml), and
for one that several servers have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from multidict import istr

from gateway.conversations.beginning import links_in, links_of
from gateway.conversations.chain import (
    NOTHING_WRITTEN,
    Wish,
    wish_in,
)
from gateway.conversations.turn import Turn
from gateway.pipeline.request_context import RequestContext
from gateway.proxy.call import Call
from gateway.proxy.personality import MessageFormat
from gateway.proxy.resolve import Target
from gateway.workers import WORKERS

if TYPE_CHECKING:
    from gateway.conversations.keeper import Conversations
    from gateway.conversations.stray import Stray

#: The header by which a request says that nothing of it is to be saved.
CACHE: Final = istr("X-Cache")
_NOT_SAVED: Final = "no-store"


def turn_of(
    conversations: Conversations,
    context: RequestContext,
    call: Call,
    sent: bytes,
    body: Mapping[str, Any],
    format: MessageFormat,
) -> Turn:
    """Return what places ``call`` in a slot, whose small body, ``sent``, was parsed to ``body``."""
    turn = Turn()
    turn.within = conversations
    turn.owner = context.principal.key_id
    turn.sent = sent
    turn.answers = call.answers
    turn.body = body
    turn.format = format.name
    turn.model = call.model
    turn.personality = context.personality
    # Not all in one line: of more than three a tuple would be made first.
    turn.slots = turn.wish = turn.stray = None
    return turn


def _of_wish(
    conversations: Conversations, wish: Wish, owner: str, sent: bytes, answers: int
) -> Turn | Stray:
    if wish.prompts > 1 or wish.named == -1:
        return conversations.stray(owner, wish.prompts * answers)
    return conversations.turn(wish, owner, sent, answers)


def heed(headers: Mapping[str, str], turn: Turn | Stray | None) -> None:
    """Let ``turn`` save nothing where the ``headers`` of its request say so."""
    if CACHE in headers and isinstance(turn, Turn) and _is_not_saved(headers[CACHE]):
        turn.keep_nothing()


def _is_not_saved(asked: str) -> bool:
    return any(word.strip().lower() == _NOT_SAVED for word in asked.split(","))


def has_several(target: Target) -> bool:
    """Return whether several servers have a model, so that a conversation sticks to one."""
    return len(target.spec.servers) > 1 or target.spec.copies > 1


def prefix_of(
    context: RequestContext, body: Mapping[str, Any], format: MessageFormat
) -> tuple[bytes, ...]:
    """Return what tells such a model's server by the conversation that ``body`` goes on with."""
    return links_of(body, context.services.chains, format.name, context.principal.key_id)


async def prefix_in(
    context: RequestContext, raw: bytes, format: MessageFormat
) -> tuple[bytes, ...]:
    """Return the same for a large body."""
    links: tuple[bytes, ...]
    links, _ = await WORKERS.run(links_in, raw, format.name, context.principal.key_id)
    return links


async def turn_aside(
    conversations: Conversations, context: RequestContext, call: Call, format: MessageFormat
) -> Turn | Stray:
    """Return what places ``call``, whose large body would keep others waiting."""
    assert isinstance(call.body, bytes)
    owner, name = context.principal.key_id, context.personality
    written = NOTHING_WRITTEN if name is None else conversations.written(call.model, name)
    wish: Wish
    wish, _ = await WORKERS.run(wish_in, call.body, format.name, owner, written)
    return _of_wish(conversations, wish, owner, call.body, call.answers)
