"""Refuses pictures and sounds that llama-server would fetch by itself. Pure.

An ``image_url`` of ``http://...`` makes llama-server connect to that address, from inside the
network it stands in (server-side request forgery, CWE-918); ``file://`` names files of this
machine. So only ``data:`` URLs pass, and plain base64, which is no URL. Where the owner of the
machine wants it (``remote_media: true``), what HTTP fetches passes as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.errors import BadRequest

#: The allowed beginnings of a medium's address.
Beginnings = tuple[str, ...]
DATA_ONLY: Beginnings = ("data:",)
FETCHED_TOO: Beginnings = (*DATA_ONLY, "http://", "https://")

#: Fields of a content part that hold an address, or an object with one: OpenAI's
#: (``image_url``, ``input_audio``), Anthropic's (``source``) and llama-server's own.
_PLACES = frozenset(
    {
        "image_url",
        "input_image",
        "audio_url",
        "input_audio",
        "video_url",
        "input_video",
        "file",
        "file_url",
        "file_data",
        "source",
    }
)
#: The names of the address within such an object.
_ADDRESSES = ("url", "data", "file_url", "file_data")
#: Fields of a body below which media may stand: those of all message formats, of embeddings
#: (``content``, ``input``) and rerank, and ``multimodal_data`` in prompts of completions.
_CARRIERS = (
    "messages",
    "input",
    "system",
    "prompt",
    "content",
    "state",
    "query",
    "documents",
)
#: Types of content parts that a model needs a projector for.
MEDIA_TYPES = frozenset(
    {
        "image_url",
        "input_image",
        "image",
        "audio_url",
        "input_audio",
        "video_url",
        "input_video",
    }
)
#: Lists of addresses: in a prompt of completions, and in /v1/systemone.
_EMBEDDED = "multimodal_data"
_LISTS = frozenset({_EMBEDDED, "files", "images"})


def refuse_remote(body: dict[str, Any], allowed: Beginnings = DATA_ONLY) -> bool:
    """Raise :class:`BadRequest` if anything in ``body`` is at an address that isn't allowed.

    Returns whether there are media in it.
    """
    found = False
    for name in _CARRIERS:
        value = body.get(name)
        if value.__class__ is list or value.__class__ is dict:
            found |= refuse_remote_in(value, allowed)
    for name in _LISTS:
        if name in body:
            _look_at_list(name, body[name], allowed)
            found |= name == _EMBEDDED
    return found


def refuse_remote_in(content: Any, allowed: Beginnings = DATA_ONLY) -> bool:
    """Do the same for the content of one message. No recursion: clients choose how
    deep it is.
    """
    waiting = [content]
    found = False
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += [item for item in value if isinstance(item, dict | list)]
            continue
        kind = value.get("type")
        arguments = kind == "tool_use"  # what a tool was called with is no media
        if kind.__class__ is str and kind in MEDIA_TYPES:
            found = True
        for key, inner in value.items():
            if key in _PLACES:
                _look_at(key, inner, allowed)
            elif key in _LISTS:
                _look_at_list(key, inner, allowed)
                found |= key == _EMBEDDED
            if isinstance(inner, dict | list) and not (arguments and key == "input"):
                waiting.append(inner)
    return found


def _look_at(place: str, value: Any, allowed: Beginnings) -> None:
    if isinstance(value, dict):
        for key in _ADDRESSES:
            _check(place, value.get(key), allowed)
    elif place != "source":  # Anthropic's search results name theirs, as a text
        _check(place, value, allowed)


def _look_at_list(place: str, values: Any, allowed: Beginnings) -> None:
    for value in values if isinstance(values, Iterable) else ():
        _check(place, value, allowed)


def _check(place: str, value: Any, allowed: Beginnings) -> None:
    # Base64 has no colon, so what has one is an address of some kind.
    if isinstance(value, str) and ":" in value and not value.startswith(allowed):
        raise BadRequest(
            f"`{place}` must begin with {' or '.join(allowed)}"
            + ("" if len(allowed) > 1 else ", as this server fetches nothing from elsewhere"),
            code="remote_media_refused",
            param=place,
        )
