"""What a request for a response asks of the gateway's memory, and what the model is sent. Pure.

The fields are those of OpenAI's reference, "Create a model response".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from gateway.errors import BadRequest

JsonObject = dict[str, Any]

#: The fields that are the gateway's own, and not the model's.
MEMORY: Final = ("previous_response_id", "conversation", "background", "store")
#: Fields of a request that its response repeats, with what OpenAI's has where nothing was said.
REPEATED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
#: What OpenAI allows as metadata.
_PAIRS, _KEY, _VALUE = 16, 64, 512
#: Ids of the gateway are short, and in a path.
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Asked(NamedTuple):
    """``store``: whether the response is to be kept; ``conversation``: an id."""

    store: bool
    background: bool
    stream: bool
    previous: str | None
    conversation: str | None

    @property
    def remembers(self) -> bool:
        """Whether there is anything to do for it."""
        return self.store or self.previous is not None or self.conversation is not None


def asked_of(body: Mapping[str, Any]) -> Asked:
    """Return what ``body`` asks. Raises :class:`BadRequest`."""
    store, background, stream = (_flag(body, name) for name in ("store", "background", "stream"))
    previous = body.get("previous_response_id")
    if previous is not None and not (isinstance(previous, str) and _ID.fullmatch(previous)):
        raise BadRequest(
            "`previous_response_id` must be the id of a response, like resp_...",
            param="previous_response_id",
        )
    conversation = _conversation(body.get("conversation"))
    if previous is not None and conversation is not None:
        raise BadRequest(
            "a response goes on with `previous_response_id` or with `conversation`, not both",
            param="conversation",
        )
    if background and store is False:
        raise BadRequest("`background` needs `store`: it is read later", param="background")
    check_metadata(body.get("metadata"))
    return Asked(store is not False, bool(background), bool(stream), previous, conversation)


def _flag(body: Mapping[str, Any], name: str) -> bool | None:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"`{name}` must be true or false", param=name)
    return value


def _conversation(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("id", "")
    if value is None:
        return None
    if not (isinstance(value, str) and _ID.fullmatch(value)):
        raise BadRequest(
            '`conversation` must be the id of one, like conv_..., or {"id": "conv_..."}',
            param="conversation",
        )
    return value


def check_metadata(value: Any) -> dict[str, str]:
    """Return ``value`` as metadata: up to 16 pairs of texts. Raises :class:`BadRequest`."""
    if value is None:
        return {}
    if (
        not isinstance(value, dict)
        or len(value) > _PAIRS
        or not all(len(name) <= _KEY for name in value)
        or not all(isinstance(text, str) and len(text) <= _VALUE for text in value.values())
    ):
        raise BadRequest(
            f"`metadata` must be an object of at most {_PAIRS} texts: names of up to {_KEY} "
            f"characters, values of up to {_VALUE}",
            param="metadata",
        )
    return value


def items_in(body: Mapping[str, Any]) -> list[JsonObject]:
    """Return the items of the ``input`` of ``body``. Raises :class:`BadRequest`."""
    given = body.get("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise BadRequest("`input` must be a text or a list of items", param="input")
    return given


def listed(items: Sequence[JsonObject], owner: str, before: int = 0) -> list[JsonObject]:
    """Return ``items`` as they are listed: each with an id and a type, and texts as content parts.

    ``owner``: the id of what has them, with so many ``before`` them. An id is the same each time.
    """
    return [_listed(item, place, owner) for place, item in enumerate(items, before)]


def _listed(item: JsonObject, place: int, owner: str) -> JsonObject:
    item = dict(item)
    kind = item.setdefault("type", "message")
    content = item.get("content")
    if kind == "message":
        item.setdefault("status", "completed")
        if isinstance(content, str):
            part = "output_text" if item.get("role") == "assistant" else "input_text"
            item["content"] = [{"type": part, "text": content}]
    if not (isinstance(id := item.get("id"), str) and _ID.fullmatch(id)):
        digest = hashlib.sha256(f"{owner} {place}".encode()).hexdigest()[:40]
        item["id"] = f"{'msg' if kind == 'message' else 'item'}_{digest}"
    return item


def dress(response: JsonObject, body: Mapping[str, Any], asked: Asked, id: str) -> None:
    """Give a ``response`` of a model its ``id``, and all that OpenAI's has of its request."""
    response["id"] = id
    for name, otherwise in REPEATED.items():
        if response.get(name) is None:
            said = body.get(name)
            response[name] = otherwise if said is None else said
    if not isinstance(response.get("output"), list):
        response["output"] = []
    response["background"] = asked.background
    response["store"] = asked.store
    response["previous_response_id"] = asked.previous
    response["conversation"] = None if asked.conversation is None else {"id": asked.conversation}
    response.setdefault("error", None)
    response.setdefault("incomplete_details", None)
