"""The messages of Ollama's chats in OpenAI's shape. Pure.

Ollama's (docs/api.md, "Generate a chat completion") hold pictures beside the text, the arguments of
tools as objects, and calls of tools without ids, which a result is matched with by its tool's name.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any, Final

from gateway.errors import BadRequest
from gateway.proxy.body import JsonObject, serialise

#: The first bytes of a picture -> its media type.
_PICTURES: Final = (
    (b"\x89PNG", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
)
#: Characters of base64 that hold the first bytes.
_FIRST: Final = 24


def in_openai_shape(messages: Any) -> list[JsonObject]:
    """Return ``messages`` as OpenAI's chat completions have them.

    Raises :class:`BadRequest` for what are none.
    """
    if not isinstance(messages, list):
        raise BadRequest("messages must be an array", param="messages")
    calls = _Calls()
    return [_message(index, message, calls) for index, message in enumerate(messages)]


class _Calls:
    """The calls of tools in a chat that have no result yet, by their ids."""

    def __init__(self) -> None:
        self._open: dict[str, str] = {}  # id -> name
        self._count = 0

    def called(self, name: str, given: Any) -> str:
        """Return the id of a call, which may be given."""
        self._count += 1
        # Nine letters and digits, which the templates of Mistral's models insist on. The same in
        # every request that goes on with this chat: it is part of the prompt.
        made = given if isinstance(given, str) and given else f"call{self._count:05d}"
        self._open[made] = name
        return made

    def answered(self, name: Any, given: Any) -> str:
        """Return the id of the call that a result belongs to: given, or the first of that name."""
        found = given if isinstance(given, str) and given else None
        if found is None:
            named = (key for key, called in self._open.items() if called == name)
            found = next(named, None) or next(iter(self._open), "call00000")
        self._open.pop(found, None)
        return found


def _message(index: int, message: Any, calls: _Calls) -> JsonObject:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise BadRequest(f"{where} must be an object", param="messages")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise BadRequest(f"{where}.role must be a string", param="messages")
    if content is not None and not isinstance(content, str):
        raise BadRequest(f"{where}.content must be a string", param="messages")
    role = role.lower()
    made: JsonObject = {"role": role, "content": content or ""}
    if message.get("images"):
        made["content"] = with_pictures(content or "", message["images"])
    if isinstance(thought := message.get("thinking"), str) and thought:
        made["reasoning_content"] = thought
    if message.get("tool_calls"):
        made["tool_calls"] = _tool_calls(where, message["tool_calls"], calls)
    if role == "tool":
        name = message.get("tool_name") or message.get("name")
        made["tool_call_id"] = calls.answered(name, message.get("tool_call_id"))
        if isinstance(name, str):
            made["name"] = name
    return made


def _tool_calls(where: str, given: Any, calls: _Calls) -> list[JsonObject]:
    if not isinstance(given, list):
        raise BadRequest(f"{where}.tool_calls must be an array", param="messages")
    made = []
    for call in given:
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise BadRequest(f"{where}.tool_calls: a function needs its name", param="messages")
        arguments = function.get("arguments") or {}
        text = arguments if isinstance(arguments, str) else serialise(arguments).decode()
        id_ = calls.called(name, call.get("id"))
        called = {"name": name, "arguments": text}
        made.append({"id": id_, "type": "function", "function": called})
    return made


def with_pictures(text: str, images: Any) -> list[JsonObject]:
    """Return the content of a message with ``text`` and ``images``, each in base64.

    Raises :class:`BadRequest` for what is no base64.
    """
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise BadRequest("images must be an array of strings in base64", param="images")
    parts: list[JsonObject] = list(_media(images))
    return [*parts, {"type": "text", "text": text}] if text else parts


def _media(images: Iterable[str]) -> Iterable[JsonObject]:
    for image in images:
        if image.startswith("data:"):  # not as documented, but some clients send it
            yield {"type": "image_url", "image_url": {"url": image}}
            continue
        try:
            first = base64.b64decode(image[:_FIRST], validate=True)
        except (ValueError, binascii.Error):
            raise BadRequest(
                "illegal base64 data in images: each is the base64 of a file", param="images"
            ) from None
        kind = next((kind for begins, kind in _PICTURES if first.startswith(begins)), None)
        sound = None
        if first.startswith(b"RIFF"):
            kind, sound = ("webp", None) if first[8:12] == b"WEBP" else (None, "wav")
        elif first.startswith((b"ID3", b"\xff\xfb", b"\xff\xf3")):
            sound = "mp3"
        if sound is not None:
            yield {"type": "input_audio", "input_audio": {"data": image, "format": sound}}
        else:
            url = f"data:image/{kind or 'jpeg'};base64,{image}"
            yield {"type": "image_url", "image_url": {"url": url}}
