"""Counts what llama-server has written for a request whose client hung up. Pure.

An answer that is not streamed tells nothing before its end, and what a stream keeps back (a text
that may become a stop sequence, half of a character, the call of a tool) comes in no event. But
llama-server looks only once a second whether its client is still there, and until then its slots
say how far they are (``/slots``). It may be longer: each result that it has for anybody lets the
second begin anew (``recv_with_timeout`` in ``tools/server/server-queue.cpp``), so that beside
somebody's stream it writes such an answer to its end.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

#: Tokens by which a counted prompt may differ from what a slot has read, as texts are joined.
_CLOSE: Final = 8


def at_work(said: bytes, prompt: int, answers: int) -> dict[int, int]:
    """Return what the slots working at a prompt of so many tokens have written, of ``answers`` to
    it.

    Tokens, by the number of the task. Of more slots than that, they are those whose prompts are
    next to it in length, and of these the ones that have written most: who is served at the same
    time has a prompt of another length, or is the same client.
    """
    found = sorted(
        (off, -_written(slot), task)
        for task, slot in _working(said).items()
        if (off := abs(_read(slot) - prompt)) <= _CLOSE
    )
    return {task: -written for _, written, task in found[:answers]}


def written(said: bytes) -> dict[int, int]:
    """Return what all slots at work have written: tokens, by the number of the task."""
    return {task: _written(slot) for task, slot in _working(said).items()}


def _working(said: bytes) -> dict[int, dict[str, Any]]:
    """Return the slots that are at work, by the numbers of their tasks."""
    try:
        slots = orjson.loads(said)
    except ValueError:
        return {}
    if not isinstance(slots, list):
        return {}
    return {
        task if type(task := slot.get("id_task")) is int else -place: slot
        for place, slot in enumerate(slots, 1)
        if isinstance(slot, dict) and slot.get("is_processing") is True
    }


def _read(slot: dict[str, Any]) -> int:
    """Return the length of the prompt that a slot works at."""
    return _number(slot.get("n_prompt_tokens_processed")) + _number(
        slot.get("n_prompt_tokens_cache")
    )


def _written(slot: dict[str, Any]) -> int:
    told = slot.get("next_token")
    first = told[0] if isinstance(told, list) and told else told
    return _number(first.get("n_decoded")) if isinstance(first, dict) else 0


def _number(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
