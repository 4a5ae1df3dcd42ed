"""Counts the tokens of a request's prompt, for answers that don't tell. Pure.

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

#: Route of llama-server -> the route that counts the prompt in the same body.
_COUNTED_BY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "/v1/chat/completions": "/v1/chat/completions/input_tokens",
        "/v1/responses": "/v1/responses/input_tokens",
        "/v1/messages": "/v1/messages/count_tokens",
    }
)
_TOKENIZE: Final = "/tokenize"
#: Route that may read several texts, each as its own prompt -> the fields that hold them.
_SEVERAL: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **dict.fromkeys(("/completion", "/completions", "/v1/completions"), ("prompt",)),
        **dict.fromkeys(("/embedding", "/embeddings", "/v1/embeddings"), ("input", "content")),
        **dict.fromkeys(
            ("/rerank", "/v1/rerank", "/reranking", "/v1/reranking"), ("documents", "texts")
        ),
    }
)
#: The fields that hold what a model reads, of all routes.
_READ: Final = (
    "messages",
    "system",
    "instructions",
    "input",
    "prompt",
    "content",
    "query",
    "documents",
    "texts",
    "input_prefix",
    "input_suffix",
    "input_extra",
)
#: Names below which a text is an encoded picture or sound.
MEDIA: Final = frozenset({"image_url", "input_audio", "source", "multimodal_data", "image_data"})
#: Estimated bytes per token. English has four and more, other languages and code fewer.
_TEXT_BYTES: Final = 3
#: How many tokens the tokenizer splits off in the time that a model reads one.
_SPLIT_TO_READ: Final = 100
#: Estimated bytes of media per token. A megabyte of JPEG becomes about a thousand tokens, depending
#: on the model.
_MEDIA_BYTES: Final = 1024


class Question(NamedTuple):
    """A request to POST to llama-server; :func:`answer` reads its answer.

    ``times``: the prompt has these tokens so many times.
    """

    target: str
    body: bytes
    times: int = 1


@dataclass(slots=True)
class _PromptParts:
    """The parts of a body that a model reads."""

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
                left.extend((item, media or name in MEDIA) for name, item in value.items())
            elif isinstance(value, list):
                self.tokens += sum(type(item) is int for item in value)
                left.extend((item, media) for item in value)


def questions(target: str, body: bytes) -> list[Question]:
    """Return how llama-server is asked for the prompt's tokens in ``body``, sent to ``target``.

    They add up, and to them :func:`beside_texts`. None where it need not be asked, or can't be.
    """
    path = target.partition("?")[0]
    if (counter := _COUNTED_BY.get(path)) is not None:
        return [Question(counter, body)]
    parsed = _parsed(body)
    texts, query = _several_texts(path, parsed)
    if len(texts) > 1 or query:
        # Split each by itself, and with the tokens around it that its model wants.
        asked = [_tokens_of(texts), _tokens_of("", len(texts), add_special=True)]
        return [*asked, _tokens_of(query, len(texts))] if query else asked
    found = _found(parsed)
    if found is None or not found.texts:
        return []
    # One text for all of them: a token more or less at the seams.
    return [_tokens_of("\n".join(found.texts), add_special=True)]


def _tokens_of(content: str | list[str], times: int = 1, *, add_special: bool = False) -> Question:
    return Question(_TOKENIZE, serialise({"content": content, "add_special": add_special}), times)


def _several_texts(path: str, parsed: dict[str, Any] | None) -> tuple[list[str], str]:
    """Return the texts that are prompts of their own, and what is read with each of them
    (rerank).
    """
    texts: list[str] = []
    if parsed is None:
        return texts, ""
    for field in _SEVERAL.get(path, ()):
        held = parsed.get(field)
        for text in held if isinstance(held, list) else [held]:
            if isinstance(text, str):
                texts.append(text)
            elif text is not None:  # tokens, or parts of one prompt
                return [], ""
    query = parsed.get("query") if texts and "documents" in _SEVERAL[path] else None
    return texts, query if isinstance(query, str) else ""


def answer(asked: Question, said: bytes) -> int | None:
    """Return the tokens that ``asked`` is about, by what llama-server said."""
    try:
        answered = orjson.loads(said)
    except ValueError:
        return None
    if not isinstance(answered, dict):
        return None
    if asked.target != _TOKENIZE:
        count = answered.get("input_tokens")
        return count if type(count) is int and count >= 0 else None
    tokens = answered.get("tokens")
    return len(tokens) * asked.times if isinstance(tokens, list) else None


def beside_texts(target: str, body: bytes) -> int:
    """Return the tokens of the prompt in ``body`` that aren't in texts: numbers, pictures,
    sounds.
    """
    if target.partition("?")[0] in _COUNTED_BY or (found := _found(_parsed(body))) is None:
        return 0
    return found.tokens + found.media // _MEDIA_BYTES


def estimate(body: object, length: int | None = None, target: str = "") -> int:
    """Return a guess at the tokens of a prompt, from the request alone.

    ``body`` that isn't bytes is a form with a file, of ``length`` bytes, and was not kept.
    """
    if not isinstance(body, bytes):
        return (length or 0) // _MEDIA_BYTES
    parsed = _parsed(body)
    found = _found(parsed)
    if found is None:
        return -(-len(body) // _TEXT_BYTES)
    texts, query = _several_texts(target.partition("?")[0], parsed)
    size = _size(query) * max(0, len(texts) - 1)
    size += sum(_size(text) for text in found.texts)
    return -(-size // _TEXT_BYTES) + found.tokens + found.media // _MEDIA_BYTES


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def split_size(asked: int, answered: int) -> int:
    """Return the tokens that a request counts which a model doesn't read, of so many bytes.

    Splitting a text into tokens takes about a hundredth of what reading them does, and so does
    putting them together, or a text into a chat template.
    """
    return -(-(asked + answered) // (_SPLIT_TO_READ * _TEXT_BYTES))


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = orjson.loads(body)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _found(parsed: dict[str, Any] | None) -> _PromptParts | None:
    if parsed is None:
        return None
    found = _PromptParts([])
    for field in _READ:
        found.look(parsed.get(field))
    if tools := parsed.get("tools"):
        found.texts.append(serialise(tools).decode())
    return found
