"""What tells the servers of a model that several have by the conversation that a request goes on
with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.conversations.chain import MESSAGES, Chains


def links_of(body: Mapping[str, Any], chains: Chains, format: str, owner: str) -> tuple[bytes, ...]:
    """Return the links of a request of ``owner``. The second one is that of the first message which
    is no instruction: it is the same in every turn of a conversation, and of no other one.
    """
    links = chains.of(body, format, owner).links
    field = MESSAGES.get(format)
    messages = body.get(field) if field is not None else None
    if not links or messages is None:
        return links
    return (b"", *links[min(_instructions(messages), len(links) - 1) :])


def _instructions(messages: object) -> int:
    """Return how many messages come before what is said."""
    if not isinstance(messages, list):
        return 0
    for count, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ("system", "developer"):
            return count
    return len(messages)


def links_in(raw: bytes, format: str, owner: str) -> tuple[tuple[bytes, ...], None]:
    """Return the same of the body in ``raw``. For :data:`gateway.workers.WORKERS`."""
    try:
        body = orjson.loads(raw)
    except ValueError:  # what only the standard library can read
        return (), None
    return links_of(body, Chains(), format, owner), None
