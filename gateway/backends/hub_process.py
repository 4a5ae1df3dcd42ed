"""The process that lists a repository of the hub. The hub's client takes a second and tens of
megabytes to import, which the gateway itself should not spend.

A job comes on stdin, as JSON; the answer is one line of JSON on stdout: the offer, or an error.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.backends import pulled
from gateway.errors import GatewayError
from gateway.models.hub import parse_reference
from gateway.models.hub_client import Hub


@dataclass(frozen=True, slots=True)
class HubQuestion:
    """A question: which repository (``OWNER/REPO``), and for which machine
    (:class:`pulled.PullPlace`); for another one there is its ``room``, in bytes as
    :meth:`pulled.DiskRoom.of_bytes` takes them.
    """

    model: str
    revision: str | None
    storage: str
    models_file: str
    llama_server: str
    budget: int | None = None
    room: tuple[int, int] | None = None


def main() -> None:
    """Answer it."""
    os.nice(5)
    print(json.dumps(_answer(HubQuestion(**json.load(sys.stdin)))), flush=True)  # noqa: T201


def _answer(question: HubQuestion) -> dict[str, Any]:
    place = pulled.PullPlace(
        Path(question.storage),
        Path(question.models_file),
        question.llama_server,
        question.budget,
    )
    try:
        reference = parse_reference(question.model)
        room = None if question.room is None else pulled.DiskRoom.of_bytes(*question.room)
        offer = pulled.look(place, Hub(), reference, question.revision, room)
        return {"offer": offer.report()}
    except GatewayError as error:
        told = {"message": error.message, "code": error.code, "param": error.param}
        return {"error": {**told, "status": error.status}}
    except Exception as error:  # none is expected: what it is, and not what stands in it
        what = f"an error of the program: {type(error).__name__}"
        told = {"message": what, "code": "internal_error", "param": None}
        return {"error": {**told, "status": 500}}


def as_text(question: HubQuestion) -> bytes:
    """Return ``question`` in the form that :func:`main` reads."""
    return json.dumps(asdict(question)).encode()
