"""The conversation of a request, for a model whose slots are saved (``cache`` in gateway.yaml)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from gateway.conversations.chain import NO_CHAIN, Chain, chain_in
from gateway.http.request import Request
from gateway.pipeline.request_context import RequestContext
from gateway.proxy.call import Call
from gateway.proxy.personality import MessageFormat
from gateway.workers import WORKERS, is_small

if TYPE_CHECKING:
    from gateway.conversations.keeper import Conversations, Turn

#: The header by which a request says that nothing of it is to be saved.
_CACHE: Final = "X-Cache"
_NOT_SAVED: Final = "no-store"


async def turn_of(
    request: Request, context: RequestContext, call: Call, format: MessageFormat
) -> Turn | None:
    """Return what places ``call`` in a slot; ``None`` where llama-server does that.

    So it is for models elsewhere, for requests that name their slot, and for those that need
    several, one for each answer.
    """
    conversations, body = context.services.conversations, call.body
    if conversations is None or call.renamed is not None or call.several:
        return None
    assert isinstance(body, bytes)
    owner = context.principal.key_id
    chain = await _chain(conversations, body, format.name, owner)
    if chain is None:
        return None
    not_saved = request.headers.get(_CACHE, "").strip().lower() == _NOT_SAVED
    return conversations.turn(NO_CHAIN if not_saved else chain, owner)


async def _chain(
    conversations: Conversations, body: bytes, format: str, owner: str
) -> Chain | None:
    """Return that of ``body``; ``None`` where it names its slot."""
    chain: Chain | None
    if not is_small(body):
        chain, _ = await WORKERS.run(chain_in, body, format, owner)
        return chain
    try:
        parsed = orjson.loads(body)
    except ValueError:  # what only the standard library can read
        return NO_CHAIN
    return None if "id_slot" in parsed else conversations.chains.of(parsed, format, owner)
