"""One client among several: sends what hypothesis draws, makes smaller what is answered wrongly.

``python -m tests.fuzz.worker``, with a job as JSON on stdin. Findings and counts are lines of JSON
on stdout, and every request's beginning and end, so that a stall can be laid at somebody's door.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import time
import zlib
from collections import Counter
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase

from tests.fuzz.attacks import everything
from tests.fuzz.heads import Requests
from tests.fuzz.sending import Answer, Request, Sender, Target
from tests.fuzz.verdict import wrong
from tests.route_table import openapi

#: Requests in one round of one kind; seconds for making a finding smaller.
_EXAMPLES, _SHRINKING = 12, 20.0


class _Found(Exception):
    pass


def _say(what: str, **fields: Any) -> None:
    print(json.dumps({"what": what, **fields}), flush=True)


def _beginning(request: Request) -> dict[str, Any]:
    return {"body": request.body[:300].decode("latin-1"), "size": len(request.body)}


class Worker:
    """Sends until its time is over."""

    def __init__(self, target: Target, deadline: float) -> None:
        self._sender = Sender(target)
        self._deadline = deadline
        self._known: set[str] = set()
        self.counts = Counter[str]()

    def _send(self, request: Request) -> Answer:
        began = time.monotonic()
        _say(
            "begin",
            kind=request.kind,
            head=request.head.decode("latin-1")[:400],
            **_beginning(request),
        )
        try:
            answer = self._sender.send(request)
        except OSError as error:  # no connection, or no TLS
            answer = Answer(0, b"", time.monotonic() - began, type(error).__name__)
        _say("end", status=answer.status, took=round(answer.seconds, 3))
        self.counts[f"{request.kind} {answer.status or answer.end} {answer.code}"] += 1
        return answer

    def round(self, strategy: Requests, seed: int) -> None:
        """Some requests of one kind; the first that is answered wrongly is made smaller."""
        found: tuple[str, Request, Answer] | None = None
        until = float("inf")

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=_EXAMPLES,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            verbosity=hypothesis.Verbosity.quiet,
        )
        @hypothesis.given(strategy)
        def one(request: Request) -> None:
            nonlocal found, until
            if time.time() > self._deadline or time.monotonic() > until:
                return
            answer = self._send(request)
            fault = wrong(request, answer)
            if fault and fault not in self._known and (found is None or fault == found[0]):
                if found is None:
                    until = time.monotonic() + _SHRINKING
                found = fault, request, answer
                raise _Found(fault)

        with contextlib.suppress(_Found, hypothesis.errors.Flaky, hypothesis.errors.Unsatisfiable):
            one()
        if found is not None:
            fault, request, answer = found
            self._known.add(fault)
            said = answer.body[:600].decode("utf-8", "replace")
            _say("found", fault=fault, seed=seed, request=request.to_json(), answer=said)

    def run(self, seed: int, strategies: dict[str, Requests]) -> None:
        for number in itertools.count():
            for name, strategy in strategies.items():
                if time.time() > self._deadline:
                    _say("counts", counts=self.counts)
                    return
                self.round(strategy, hash_of(seed, number, name))


def hash_of(*parts: Any) -> int:
    """The same number for the same parts, in every process."""
    return zlib.crc32(repr(parts).encode())


def main() -> None:
    job = json.load(sys.stdin)
    strategies = everything(openapi())
    kinds = job["kinds"] or list(strategies)
    order = list(strategies)
    turn = job["number"] * 3 % len(order)
    chosen = {
        n: strategies[n] for n in order[turn:] + order[:turn] if n.split()[0] in kinds or n in kinds
    }
    Worker(Target(**job["target"]), job["deadline"]).run(job["seed"], chosen)


if __name__ == "__main__":
    main()
