"""The conversation of a request: for a model whose slots are saved (``cache`` in gateway.yaml), and
for one that several servers have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from multidict import istr

from gateway.conversations.chain import (
    NO_CHAIN,
    NOTHING_WRITTEN,
    Wish,
    short_wish,
    wish_in,
    wish_of,
)
from gateway.conversations.opening import Written
from gateway.pipeline.request_context import RequestContext
from gateway.proxy.call import Call
from gateway.proxy.personality import MessageFormat
from gateway.proxy.resolve import Target
from gateway.used_personalities import written_of
from gateway.workers import WORKERS

if TYPE_CHECKING:
    from gateway.conversations.keeper import Conversations, Turn
    from gateway.conversations.stray import Stray

#: The header by which a request says that nothing of it is to be saved.
_CACHE: Final = istr("X-Cache")
_NOT_SAVED: Final = "no-store"


def turn_of(headers: Mapping[str, str], context: RequestContext, call: Call) -> Turn | Stray | None:
    """Return what places ``call`` in a slot, as its wish is; ``None`` for models elsewhere."""
    conversations, wish = context.services.conversations, call.wish
    if conversations is None or wish is None:
        return None
    call.wish = None
    if wish.prompts > 1 or wish.named == -1:
        return conversations.stray(context.principal.key_id, wish.prompts * call.answers)
    if _CACHE in headers and _is_not_saved(headers[_CACHE]):
        wish = wish._replace(chain=NO_CHAIN, prefix=None, opening=None)
    return conversations.turn(wish, context.principal.key_id, call.answers)


def _is_not_saved(asked: str) -> bool:
    return any(word.strip().lower() == _NOT_SAVED for word in asked.split(","))


def wish_of_body(
    conversations: Conversations,
    context: RequestContext,
    call: Call,
    body: Mapping[str, Any],
    format: MessageFormat,
) -> Wish:
    """Return what ``call`` asks of its slot, whose small body was parsed to ``body``."""
    sent = call.body
    if isinstance(sent, bytes) and conversations.is_short(body, len(sent)):
        return short_wish(body)
    owner, written = context.principal.key_id, _written_of(context, call)
    return wish_of(body, conversations.chains, format.name, owner, written)


def has_several(target: Target) -> bool:
    """Return whether several servers have a model, so that a conversation sticks to one."""
    return len(target.spec.servers) > 1


def prefix_of(
    context: RequestContext, body: Mapping[str, Any], format: MessageFormat
) -> tuple[bytes, ...]:
    """Return what tells such a model's server by the conversation that ``body`` goes on with."""
    return context.services.chains.of(body, format.name, context.principal.key_id).links


async def prefix_in(
    context: RequestContext, raw: bytes, format: MessageFormat
) -> tuple[bytes, ...]:
    """Return the same for a large body."""
    wish: Wish
    wish, _ = await WORKERS.run(wish_in, raw, format.name, context.principal.key_id)
    return wish.chain.links


def _written_of(context: RequestContext, call: Call) -> Written:
    """Return what an operator wrote of the personality that ``call`` was given, as far as it is
    still that.
    """
    services = context.services
    if (name := context.personality) is None or (conversations := services.conversations) is None:
        return NOTHING_WRITTEN
    spec = services.library.catalog.models.get(call.model)
    personality = None if spec is None else spec.personalities.get(name)
    if spec is None or personality is None:
        return NOTHING_WRITTEN
    known = conversations.written.get((call.model, name))
    if known is not None and known[0] is personality:
        return known[1]
    written = written_of(spec, personality)
    conversations.written[call.model, name] = personality, written
    return written


async def wish_aside(context: RequestContext, call: Call, format: MessageFormat) -> Wish:
    """Return what ``call`` asks of its slot, whose large body would keep others waiting."""
    assert isinstance(call.body, bytes)
    owner, written = context.principal.key_id, _written_of(context, call)
    wish: Wish
    wish, _ = await WORKERS.run(wish_in, call.body, format.name, owner, written)
    return wish
