"""Reads the state of a llama-server's slots: GET /slots (llama.cpp's README). Pure.

Its numbers have other names in other builds. Those that are known make it possible to say how much
was done; that anything is another number than before always means that it goes on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

#: Fields that don't show progress: settings, which newer builds list for each slot, and texts.
_FIXED = frozenset({"params", "prompt", "generated", "n_ctx"})


class Slots(NamedTuple):
    """The slots at one moment. ``tasks``: which requests are in which slots; ``state``: all that
    may change.
    """

    tasks: tuple[tuple[object, object], ...]
    state: bytes
    free: bool  # whether one is
    read: int | None  # tokens of prompts that were read, of these requests
    written: int | None  # of answers
    pending: int  # tokens of prompts that are still to be read
    depth: int  # tokens of the longest prompt among those


class SlotSeen(NamedTuple):
    """One slot. ``task``: its last request; ``tokens``: what is in it (of a build that says less:
    the prompt of that request); ``None``: this build doesn't tell.
    """

    number: int
    working: bool
    task: int | None
    tokens: int | None


def each_slot(answer: bytes | None) -> list[SlotSeen] | None:
    """Return what an answer says of each slot; ``None`` if it is no list of slots."""
    try:
        listed = orjson.loads(answer or b"")
    except ValueError:
        return None
    if not isinstance(listed, list) or not all(isinstance(slot, dict) for slot in listed):
        return None
    return [_seen(place, slot) for place, slot in enumerate(listed)]


def _seen(place: int, slot: dict[str, Any]) -> SlotSeen:
    number, task, tokens = slot.get("id"), slot.get("id_task"), slot.get("n_prompt_tokens")
    return SlotSeen(
        number if isinstance(number, int) else place,
        bool(slot.get("is_processing") or slot.get("state")),
        task if isinstance(task, int) else None,
        tokens if isinstance(tokens, int) else None,
    )


def slots_in(answer: bytes) -> Slots | None:
    """Return what an answer says; ``None`` if it is no list of slots."""
    try:
        listed = orjson.loads(answer)
    except ValueError:
        return None
    if not isinstance(listed, list) or not all(isinstance(slot, dict) for slot in listed):
        return None
    busy = [slot for slot in listed if slot.get("is_processing") or slot.get("state")]
    read = [slot.get("n_prompt_tokens_processed") for slot in busy]
    written = [_decoded(slot) for slot in busy]
    pending = depth = 0
    for slot, done, answered in zip(busy, read, written, strict=True):
        tokens = slot.get("n_prompt_tokens")
        if isinstance(tokens, int) and isinstance(done, int) and not answered:
            pending += max(tokens - done, 0)
            depth = max(depth, tokens)
    return Slots(
        tuple((slot.get("id"), slot.get("id_task")) for slot in busy),
        orjson.dumps([{k: v for k, v in slot.items() if k not in _FIXED} for slot in busy]),
        len(busy) < len(listed),
        _sum(read),
        _sum(written),
        pending,
        depth,
    )


def _decoded(slot: dict[str, Any]) -> object:
    told = slot.get("next_token")
    if isinstance(told, list):
        told = told[0] if told else None
    return told.get("n_decoded") if isinstance(told, dict) else slot.get("n_decoded")


def _sum(numbers: list[object]) -> int | None:
    known = [number for number in numbers if isinstance(number, int)]
    return sum(known) if len(known) == len(numbers) else None
