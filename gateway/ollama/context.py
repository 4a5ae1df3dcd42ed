"""The ``context`` of Ollama's /api/generate: a conversation, kept by its client. Pure.

In Ollama it is the tokens so far, to be sent again with the next question. For clients it is a list
of integers without a meaning. Here it holds the messages, so that what comes of them is a
conversation like any other, whose prompt is cached: packed JSON, three bytes to an integer.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

from gateway.errors import BadRequest
from gateway.proxy.body import JsonObject, serialise

#: The first integer of each, which no token is: that of another server must not be taken for ours.
_MARK: Final = -0x4C4C4D
_WIDTH: Final = 3
#: Bytes of the messages. A packed text could be a thousand times as long.
_LONGEST: Final = 4 * 2**20


def pack(messages: list[JsonObject]) -> list[int] | None:
    """Return the context that holds ``messages``; None if they are too long for one."""
    text = serialise({"talk": [[message["role"], message["content"]] for message in messages]})
    if len(text) > _LONGEST:
        return None
    data = zlib.compress(text, 1)
    whole = len(data).to_bytes(4, "big") + data
    pieces = range(0, len(whole), _WIDTH)
    return [
        _MARK,
        *(int.from_bytes(whole[at : at + _WIDTH].ljust(_WIDTH, b"\0"), "big") for at in pieces),
    ]


def unpack(context: Any) -> list[JsonObject]:
    """Return the messages in ``context``. Raises :class:`BadRequest` for what isn't one of ours."""
    if context is None or context == []:
        return []
    try:
        mark, *rest = context
        if mark != _MARK:
            raise ValueError
        whole = b"".join(number.to_bytes(_WIDTH, "big") for number in rest)
        size = int.from_bytes(whole[:4], "big")
        reader = zlib.decompressobj()
        text = reader.decompress(whole[4 : 4 + size], _LONGEST)
        if not reader.eof:
            raise ValueError
        return [_message(*pair) for pair in json.loads(text)["talk"]]
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
        OverflowError,
        zlib.error,
    ):
        raise BadRequest(
            "context is none of this server: send that of the answer before, or none",
            param="context",
        ) from None


def _message(role: Any, content: Any) -> JsonObject:
    if role not in ("user", "assistant", "system") or not isinstance(content, str):
        raise ValueError
    return {"role": role, "content": content}
