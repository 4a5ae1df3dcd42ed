"""One job of the load generator, and what a proxy used meanwhile."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from tests.bench.load import Job
from tests.bench.procstat import cpu_seconds, memory
from tests.bench.proxies import Direct, Proxy


class Failed(Exception):
    """An answer was wrong, or the load generator could not do its work."""


@contextlib.contextmanager
def _running(job: Job) -> Iterator[subprocess.Popen[str]]:
    """A load generator, warmed up and waiting."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    limit = threading.Timer(job.seconds * 4 + 60, process.kill)
    limit.start()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps(asdict(job)), file=process.stdin, flush=True)
        if (line := process.stdout.readline()) != "ready\n":
            raise Failed(f"{job.kind} with {job.clients} clients: {line}")
        yield process
    finally:
        limit.cancel()
        process.kill()
        process.wait()


def measured(proxy: Proxy, job: Job, sampled: list[float] | None = None) -> dict[str, Any]:
    """Run ``job``; its result, with ``cpu``: seconds that the proxy used meanwhile."""
    with _running(job) as load:
        assert load.stdin is not None
        assert load.stdout is not None
        direct = isinstance(proxy, Direct)
        before = 0.0 if direct else cpu_seconds(proxy.pid)
        print("go", file=load.stdin, flush=True)
        stop = threading.Event()
        sampler = None
        if sampled is not None and not direct:
            sampler = threading.Thread(target=_sample, args=(proxy.pid, sampled, stop))
            sampler.start()
        line = load.stdout.readline()
        after = 0.0 if direct else cpu_seconds(proxy.pid)
        stop.set()
        if sampler is not None:
            sampler.join()
    result = json.loads(line or '{"failures": ["the load generator died"]}')
    failures = result["failures"]
    # Go's ReverseProxy breaks a stream now and then (its server closes the body of a request too
    # early, on a busy machine): that is told, and the run goes on.
    if failures and (job.strict or result["failed"] > max(5, result["answers"] / 50)):
        raise Failed(
            f"{proxy.name}: {job.kind} with {job.clients} clients: {failures}\n{proxy.last_words()}"
        )
    result["cpu"] = after - before
    return dict(result)


def _sample(pid: int, into: list[float], stop: threading.Event) -> None:
    while not stop.wait(0.1):
        into.append(memory(pid)[0])
