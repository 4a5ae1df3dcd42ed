"""The prompt of a body that has no messages, in pieces whose beginning tells what is read first.

These are raw completions (``prompt``) and fill-in-the-middle (``input_prefix`` and the like). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Final, NamedTuple

import orjson

#: Characters, and tokens, to a piece. What is left at the end of a prompt is none: a prompt that
#: goes on from there has more in that piece.
_BLOCK: Final = 1024
_TOKENS: Final = 256
#: Characters that a token counts for.
_CHARACTERS: Final = 3


class Piece(NamedTuple):
    """``data`` is what it is, ``size`` how many characters of the prompt that makes."""

    data: bytes
    size: int


def prompts_in(body: Mapping[str, Any]) -> int:
    """Return how many prompts a body has, each of which llama-server takes for itself."""
    prompt = body.get("prompt")
    if not isinstance(prompt, list) or any(isinstance(part, int) for part in prompt):
        return 1
    return max(1, len(prompt))


def pieces_of(body: Mapping[str, Any], *, fills_gap: bool = False) -> Iterator[Piece]:
    """Yield the pieces of a prompt, in the order in which llama-server reads it.

    ``fills_gap``: it is one for ``/infill``; elsewhere what stands around a gap is not read. None
    where there is no prompt, or several. Raises :class:`TypeError` (or
    :class:`AttributeError`) for what is none.
    """
    if fills_gap:
        # The chunks come first. Whether the prefix or the suffix follows is the model's choice;
        # most have the prefix, and a mistake costs a slot that fits less well.
        for chunk in body.get("input_extra") or ():
            yield _whole(chunk)
        yield from _blocks(body.get("input_prefix") or "")
        return
    if prompts_in(body) > 1:
        return
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, dict):
        # Where in the text its media are cannot be told without the model.
        yield Piece(orjson.dumps(prompt.get("multimodal_data")), 0)
        prompt = prompt.get("prompt_string")
    if isinstance(prompt, str):
        yield from _blocks(prompt)
    elif isinstance(prompt, list):
        yield from _mixed(prompt)


def _mixed(parts: Iterable[Any]) -> Iterator[Piece]:
    """Tokens, with texts between them maybe: of all but the last the end is a piece, too."""
    runs = [(kind, [*run]) for kind, run in groupby(parts, type)]
    for number, (kind, run) in enumerate(runs, 1):
        if kind is str:
            last = run.pop() if number == len(runs) else None
            yield from map(_whole, run)
            yield from _blocks(last or "")
        else:
            whole = len(run) - len(run) % _TOKENS if number == len(runs) else len(run)
            for start in range(0, whole, _TOKENS):
                block = run[start : start + _TOKENS]
                yield Piece(orjson.dumps(block), len(block) * _CHARACTERS)


def _blocks(text: str) -> Iterator[Piece]:
    for end in range(_BLOCK, len(text) + 1, _BLOCK):
        yield Piece(text[end - _BLOCK : end].encode("utf-8", "surrogatepass"), _BLOCK)


def _whole(value: Any) -> Piece:
    written = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return Piece(written, len(written))
