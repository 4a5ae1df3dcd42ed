"""How many tokens a request's prompt has, when its answer was not waited for to tell. Pure.

llama-server counts a chat as it would read it, template and all, without running it; other prompts
are texts that it splits into tokens. Where it can't be asked any more there is an estimate, which
depends on nothing but the request itself: what could be learned from other requests, a client could
teach wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from gateway.proxy.body import serialise

#: Routes of llama-server, and those that count the prompt in the same body.
_COUNTED_BY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "/v1/chat/completions": "/v1/chat/completions/input_tokens",
        "/v1/responses": "/v1/responses/input_tokens",
        "/v1/messages": "/v1/messages/count_tokens",
    }
)
_TOKENIZE: Final = "/tokenize"
#: Fields of bodies that hold what a model reads, over all routes.
_READ: Final = (
    "messages",
    "system",
    "instructions",
    "input",
    "prompt",
    "content",
    "query",
    "documents",
    "input_prefix",
    "input_suffix",
    "input_extra",
)
#: Below these names a text is a picture or a sound, written down in some way.
_MEDIA: Final = frozenset({"image_url", "input_audio", "source", "multimodal_data", "image_data"})
#: Bytes to a token, in an estimate. English has four and more, other languages and code fewer.
_TEXT_BYTES: Final = 3
#: And of media. A megabyte of JPEG becomes about a thousand tokens, more or less by model.
_MEDIA_BYTES: Final = 1024


class Question(NamedTuple):
    """What to POST to llama-server, whose answer :func:`answer` reads."""

    target: str
    body: bytes


@dataclass(slots=True)
class _Found:
    """What a model reads in a body."""

    texts: list[str]
    tokens: int = 0  # given as numbers
    media: int = 0  # bytes

    def look(self, held: Any) -> None:
        """Add what ``held`` holds, however deep."""
        left = [(held, False)]
        while left:
            value, media = left.pop()
            if isinstance(value, str):
                if media or value.startswith("data:"):
                    self.media += len(value)
                else:
                    self.texts.append(value)
            elif isinstance(value, dict):
                left.extend((item, media or name in _MEDIA) for name, item in value.items())
            elif isinstance(value, list):
                self.tokens += sum(type(item) is int for item in value)
                left.extend((item, media) for item in value)


def question(target: str, body: bytes) -> Question | None:
    """How llama-server is asked for the prompt's tokens in ``body``, sent to ``target``.

    ``None`` where it need not be asked, or can't be.
    """
    path = target.partition("?")[0]
    if (counter := _COUNTED_BY.get(path)) is not None:
        return Question(counter, body)
    found = _found(body)
    if found is None or not found.texts:
        return None
    # One text for all of them: a token more or less at the seams.
    asked = {"content": "\n".join(found.texts), "add_special": True}
    return Question(_TOKENIZE, serialise(asked))


def answer(asked: Question, said: bytes, body: bytes) -> int | None:
    """The tokens of the prompt in ``body``, by what llama-server said."""
    try:
        answered = orjson.loads(said)
    except ValueError:
        return None
    if not isinstance(answered, dict):
        return None
    if asked.target != _TOKENIZE:
        count = answered.get("input_tokens")
        return count if type(count) is int and count >= 0 else None
    tokens, found = answered.get("tokens"), _found(body)
    if not isinstance(tokens, list) or found is None:
        return None
    return len(tokens) + found.tokens + found.media // _MEDIA_BYTES


def estimate(body: object, length: int | None = None) -> int:
    """A guess at the tokens of a prompt, from the request alone.

    ``body`` that isn't bytes is a form with a file, of ``length`` bytes, and was not kept.
    """
    if not isinstance(body, bytes):
        return (length or 0) // _MEDIA_BYTES
    found = _found(body)
    if found is None:
        return -(-len(body) // _TEXT_BYTES)
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in found.texts)
    return -(-size // _TEXT_BYTES) + found.tokens + found.media // _MEDIA_BYTES


def _found(body: bytes) -> _Found | None:
    try:
        parsed = orjson.loads(body)
    except ValueError:
        return None
    if not isinstance(parsed, dict):
        return None
    found = _Found([])
    for field in _READ:
        found.look(parsed.get(field))
    if tools := parsed.get("tools"):
        found.texts.append(serialise(tools).decode())
    return found
