"""The ordinary requests, and whether an answer is the one that its request should have got."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.soak.allowed import CLOSED, CUT, NOTHING, RIGHT
from tests.soak.client import Answer, request

#: The models of a gateway; of the last there is room only where another one goes.
MODELS: Final = ("a", "b")
SWAPPED_IN: Final = "c"
#: Personality -> the last word of its prompt, which the answer names.
PERSONALITIES: Final = {"poet": "rhyme", "clerk": "forms"}
#: In every prompt: nothing that a gateway writes down may have it.
SECRET: Final = "soak-prompt-words"
#: Events of a stream, and seconds between them.
EVENTS, PAUSE = 12, 0.005

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and how its answer is looked at."""

    kind: str
    data: bytes
    outcome: Callable[[Answer], str]
    #: Whether it goes to a model, and is counted there.
    counted: bool = True


def outcome_of(asked: Asked, answer: Answer, *, reused: bool) -> str:
    """How a request ended, in the words of the table of what is allowed."""
    if answer.received == 0:
        return CLOSED if reused else NOTHING
    if answer.complete:
        return asked.outcome(answer)
    code = _last_error(answer.text)
    return f"{CUT}: {code}" if code else CUT


def _last_error(text: bytes) -> str | None:
    """The code in the last event of a stream, if that is an error."""
    lines = [line for line in text.decode().split("\n") if line.startswith("data: {")]
    if not lines:
        return None
    error = json.loads(lines[-1].removeprefix("data: ")).get("error")
    return error and str(error["code"])


def _failed(answer: Answer) -> str:
    try:
        return f"{answer.status} {answer.json()['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status} {answer.text[:200]!r}"


def _compared(found: object, expected: object) -> str:
    return RIGHT if found == expected else f"wrong: {found!r} and not {expected!r}"


# --- what is asked ---------------------------------------------------------------------------


def _whole(key: str, model: str, says: str, body: dict[str, Any], kind: str) -> Asked:
    def outcome(answer: Answer) -> str:
        if answer.status != 200:
            return _failed(answer)
        choice = answer.json()["choices"][0]
        return _compared(choice["text"], says)

    path = "/v1/completions" if kind == "completion" else "/v1/chat/completions"
    return Asked(
        kind, request("POST", path, key, json.dumps({"model": model, **body}).encode()), outcome
    )


def _stream(key: str, model: str, says: str, body: dict[str, Any]) -> Asked:
    expected = "".join(f"{says}#{number} " for number in range(EVENTS))

    def outcome(answer: Answer) -> str:
        if answer.status != 200:
            return _failed(answer)
        lines = [line for line in answer.text.decode().split("\n") if line.startswith("data: ")]
        if not lines or lines.pop() != "data: [DONE]":
            return f"wrong: a stream without its end, {answer.text[-300:]!r}"
        parsed = [json.loads(line.removeprefix("data: ")) for line in lines]
        deltas = [choice["delta"] for event in parsed for choice in event.get("choices", ())]
        return _compared("".join(delta.get("content") or "" for delta in deltas), expected)

    body = {"model": model, **body, "stream": True, "max_tokens": EVENTS, "soak_pause": PAUSE}
    data = request("POST", "/v1/chat/completions", key, json.dumps(body).encode())
    return Asked("stream", data, outcome)


def chat(chance: random.Random, key: str, model: str, kind: str) -> Asked:
    """A request to ``model`` of one kind, with a personality or without."""
    nonce = f"n{next(_numbers)}x{chance.getrandbits(40):x}"
    persona = chance.choice((None, *PERSONALITIES))
    says = f"{model}|{PERSONALITIES[persona] if persona else '-'}|{nonce}"
    name = f"{model}:{persona}" if persona else model
    text = f"{SECRET} {nonce}"
    if kind == "completion":
        return _whole(key, model, f"{model}|-|{nonce}", {"prompt": text}, kind)
    if kind == "large":  # too much for the fast protocol
        text = f"{SECRET} " * 8000 + nonce
    body = {"messages": [{"role": "user", "content": text}]}
    if kind == "stream":
        return _stream(key, name, says, body)
    return _whole(key, name, says, body, kind)


def _listed(key: str) -> Asked:
    def outcome(answer: Answer) -> str:
        if answer.status != 200:
            return _failed(answer)
        return _compared({*MODELS, SWAPPED_IN} <= {m["id"] for m in answer.json()["data"]}, True)

    return Asked("list", request("GET", "/v1/models", key), outcome, counted=False)


def _refused(key: str, status: int, code: str) -> Asked:
    body = {"model": "nobody", "messages": [{"role": "user", "content": SECRET}]}

    def outcome(answer: Answer) -> str:
        return _compared(_failed(answer), f"{status} {code}")

    data = request("POST", "/v1/chat/completions", key, json.dumps(body).encode())
    return Asked("refused", data, outcome, counted=False)


#: Kind -> how often of a thousand.
_WEIGHTS: Final = {
    "whole": 600,
    "stream": 250,
    "completion": 80,
    "list": 40,
    "unknown model": 20,
    "large": 10,
}


def any_request(chance: random.Random, key: str) -> Asked:
    """One of all kinds, as often as each is asked."""
    (kind,) = chance.choices([*_WEIGHTS], [*_WEIGHTS.values()])
    if kind == "list":
        return _listed(key)
    if kind == "unknown model":
        return _refused(key, 404, "model_not_found")
    return chat(chance, key, chance.choice(MODELS), kind)
