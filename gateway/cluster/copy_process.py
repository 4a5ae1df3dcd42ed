"""The process of one copy from other machines, as :mod:`gateway.backends.pull_process` is of a
pull.

A job comes on stdin, as JSON; on stdout a line of JSON tells of each step, the last one of the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

from gateway.cluster.ca import Credentials, client_context
from gateway.cluster.node_source import CopyFailed, CopyPlan, NodeSource
from gateway.cluster.offer import Offer
from gateway.errors import GatewayError
from gateway.models.fetching import PullProgress, fetch
from gateway.models.hub import HubFile
from gateway.models.hub_client import HubFailed, Interrupted
from gateway.models.transfer_speed import TransferSpeed, seconds_left
from gateway.secret import Secret

#: Seconds before each retry, by when another machine is asked where there is one: somebody waits
#: for the model, and could have another one meanwhile.
_WAITS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
#: The same before anything has come.
_FIRST_WAITS: Final = _WAITS[:4]
_OFTEN: Final = 0.2


@dataclass(frozen=True, slots=True)
class CopyJob:
    """What is copied, and from where. ``offers``: fields of :class:`Offer`, the key as text."""

    storage: str
    files: list[str]
    offers: list[dict[str, Any]]
    certificate: str
    private_key: str
    authorities: str


def as_text(
    storage: Path, files: list[str], offers: list[Offer], credentials: Credentials
) -> bytes:
    """Return a job in the form that :func:`main` reads."""
    told = [
        {
            "id": one.id,
            "node": one.node,
            "host": one.host,
            "port": one.port,
            "key": one.key.reveal(),
            "files": one.files,
        }
        for one in offers
    ]
    job = CopyJob(
        str(storage),
        files,
        told,
        credentials.certificate.decode(),
        credentials.private_key.reveal(),
        credentials.authorities.decode(),
    )
    return json.dumps(asdict(job)).encode()


def main() -> None:
    """Do the job, and say how it went."""
    with contextlib.suppress(OSError):  # killed before processes with models
        Path("/proc/self/oom_score_adj").write_text("500")
    os.nice(5)
    try:
        _copy(CopyJob(**json.load(sys.stdin)))
        _say({"stage": "done"})
    except GatewayError as error:
        code = CopyFailed.default_code if type(error) in (HubFailed, Interrupted) else error.code
        _say({"stage": "failed", "error": {"message": error.message, "code": code}})
    except Exception as error:  # none is expected: what it is, and not what stands in it
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        message = f"an error of the program: {type(error).__name__} ({where})"
        _say({"stage": "failed", "error": {"message": message, "code": "internal_error"}})


def _copy(job: CopyJob) -> None:
    storage = Path(job.storage)
    offers = [
        Offer(**{**one, "key": Secret(one["key"]), "files": tuple(one["files"])})
        for one in job.offers
    ]
    credentials = Credentials(
        job.certificate.encode(),
        Secret(job.private_key),
        job.authorities.encode(),
        datetime.max.replace(tzinfo=UTC),
    )
    source = NodeSource(offers, client_context(credentials))
    plan = CopyPlan(storage, tuple(_asked(source, path) for path in job.files))
    speed = TransferSpeed()

    def told(progress: PullProgress) -> None:
        _say({**_told(progress, speed), "source": source.host})

    fetch(plan, source, told, waits=_WAITS)


def _asked(source: NodeSource, path: str) -> HubFile:
    """Return size and hash of a file; where they must be found first, that is told."""
    said, name = time.monotonic(), PurePosixPath(path).name

    def told(done: int) -> None:
        nonlocal said
        if (now := time.monotonic()) - said >= _OFTEN:
            said = now
            _say({"stage": "hashing", "file": name, "source": source.host, "bytes": done})

    for wait in _FIRST_WAITS:
        try:
            return source.file(path, told)
        except Interrupted as error:
            note = f"{error.message}; again in {wait:.1f} s"
            _say({"stage": "waiting", "file": name, "note": note})
            time.sleep(wait)
    return source.file(path, told)


def _told(progress: PullProgress, speed: TransferSpeed) -> dict[str, Any]:
    copying = progress.stage == "downloading"
    rate = speed.saw(progress.fetched) if copying else None
    left = seconds_left(progress.total - progress.done, rate)
    return {
        "stage": "copying" if copying else progress.stage,
        "file": progress.file,
        "bytes": progress.done,
        "total": progress.total,
        "speed": round(rate) if rate is not None else None,
        "seconds_left": round(left) if left is not None else None,
        "note": f"{progress.note}; again in {progress.wait:.0f} s" if progress.note else None,
    }


def _say(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)  # noqa: T201  # who has asked reads it
