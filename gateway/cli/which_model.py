"""The model of a chat that names none: what the gateway would take, or what the user picks."""

from __future__ import annotations

import json
import sys
from typing import Any

from gateway.cli.client import Client, Refused
from gateway.errors import BadRequest


def model_meant(client: Client) -> str | None:
    """Return the model that a request without a name means now; ``None`` if it isn't clear.

    It is the model chosen by a load, else the only model, else the only loaded one. Raises
    :class:`BadRequest` if there is no model at all.
    """
    names = model_names(client)
    if not names:
        raise BadRequest(
            f"{client.name} has no model yet: `llm-gateway models scan FOLDER` finds GGUF files, "
            "`llm-gateway pull` fetches one"
        )
    standing = _standing(client)
    if active := standing.get("active"):
        return str(active)
    loaded = [str(name) for name in standing.get("models") or ()]
    return next((one[0] for one in (names, loaded) if len(one) == 1), None)


def model_names(client: Client) -> list[str]:
    """Return the gateway's models, without those that stand for a personality."""
    return [name for name, _ in _named(client)]


def _named(client: Client) -> list[tuple[str, str]]:
    """Return them with what else is said of each, for people."""
    return [
        (str(one["id"]), " - ".join(filter(None, (one.get("name"), one.get("description")))))
        for one in client.ask("GET", "/v1/models")["data"]
        if "parent" not in one
    ]


def picked(client: Client) -> str:
    """Return the model that the user picks by number or name; Enter takes the first.

    Raises ``EOFError`` and ``KeyboardInterrupt`` as ``input`` does.
    """
    named = _named(client)
    names = [name for name, _ in named]
    for number, (name, said) in enumerate(named, 1):
        print(f"{number:>2}  {name}{said and f'  ({said})'}", file=sys.stderr)
    while True:
        answer = input("Which model? [1] ").strip() or "1"
        if answer in names:
            return answer
        if answer.isdecimal() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]
        print(f"{answer!r} is neither a number from 1 to {len(names)} nor a name", file=sys.stderr)


def _standing(client: Client) -> dict[str, Any]:
    """Return the first event of ``/status``."""
    events = client.events("GET", "/status")
    try:
        standing = json.loads(next(events))
    except (StopIteration, ValueError):
        raise Refused(f"{client.name} does not say how its models stand") from None
    finally:
        events.close()  # type: ignore[attr-defined]  # a generator: the connection ends
    return dict(standing)
