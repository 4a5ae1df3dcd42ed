"""The process of one pull, so that hashing and writing many gigabytes doesn't disturb the gateway.

A job comes on stdin, as JSON; on stdout a line of JSON tells of each step, the last one of the end.
The token of the hub is in the environment alone. Whatever ends this, the next one goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.backends import pulled
from gateway.errors import GatewayError
from gateway.models.fetching import PullProgress
from gateway.models.hub import parse_reference
from gateway.models.hub_client import Hub
from gateway.models.pull import pull
from gateway.models.transfer_speed import TransferSpeed, seconds_left
from gateway.problems import InvalidFiles


@dataclass(frozen=True, slots=True)
class Job:
    """A pull of ``OWNER/REPO[:QUANT]`` and where it goes: see :class:`pulled.PullPlace`.

    ``propose``: an entry is told, and not written.
    """

    model: str
    storage: str
    models_file: str
    llama_server: str
    budget: int | None = None
    revision: str | None = None
    name: str | None = None
    entry: bool = True
    propose: bool = False
    replace: bool = False


def main() -> None:
    """Do the job, and say how it went."""
    with contextlib.suppress(OSError):  # killed before processes with models
        Path("/proc/self/oom_score_adj").write_text("500")
    os.nice(5)
    try:
        for told in steps(Job(**json.load(sys.stdin))):
            _say(told)
    except (GatewayError, InvalidFiles) as error:
        code = error.code if isinstance(error, GatewayError) else "models_file_broken"
        _say({"stage": "failed", "error": {"message": str(error), "code": code}})
    except Exception as error:  # none is expected: what it is, and not what stands in it
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        message = f"an error of the program: {type(error).__name__} ({where})"
        _say({"stage": "failed", "error": {"message": message, "code": "internal_error"}})


def steps(job: Job) -> Iterator[dict[str, Any]]:
    """Do the job. Raises :class:`GatewayError`, :class:`InvalidFiles`."""
    place = pulled.PullPlace(Path(job.storage), Path(job.models_file), job.llama_server, job.budget)
    client = Hub()
    yield {"stage": "listing"}
    offer = pulled.look(place, client, parse_reference(job.model), job.revision)
    plan = pulled.planned(place, offer, pulled.chosen(offer))
    yield {
        "stage": "downloading",
        "quantisation": plan.variant.label,
        "bytes": plan.stored,
        "total": plan.size,
        "parts": [str(plan.part(file)) for file in plan.files],
    }
    speed = TransferSpeed()
    pull(plan, client, lambda progress: _say(_told(progress, speed)), replace=job.replace)
    name, proposed = None, None
    if job.propose:
        proposal = pulled.proposed(place, plan)
        name, proposed = proposal.name, proposal.entry
    elif job.entry:
        entry = pulled.add_entry(place, plan, job.name)
        name = entry if isinstance(entry, str) else entry.name
    yield {"stage": "done", "name": name, "entry": proposed, "bytes": plan.size, "file": None}


def _told(progress: PullProgress, speed: TransferSpeed) -> dict[str, Any]:
    rate = speed.saw(progress.fetched) if progress.stage == "downloading" else None
    return {
        "stage": progress.stage,
        "file": progress.file,
        "bytes": progress.done,
        "total": progress.total,
        "speed": round(rate) if rate is not None else None,
        "seconds_left": _rounded(seconds_left(progress.total - progress.done, rate)),
        "note": f"{progress.note}; again in {progress.wait:.0f} s" if progress.note else None,
    }


def _rounded(seconds: float | None) -> int | None:
    return round(seconds) if seconds is not None else None


def _say(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)  # noqa: T201  # who has asked reads it


def as_text(job: Job) -> bytes:
    """Return ``job`` in the form that :func:`main` reads."""
    return json.dumps(asdict(job)).encode()
