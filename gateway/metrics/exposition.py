"""The answer of ``GET /metrics``: everything as it is at one moment, in the format asked for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.access.accounting import Accounting
from gateway.backends.scheduler import Scheduler
from gateway.conversations.counts import CacheReport
from gateway.history import History
from gateway.http.lifecycle import Lifecycle
from gateway.http.tls_state import TlsState
from gateway.metrics.backends import of_backends
from gateway.metrics.itself import of_certificate, of_gateway, of_process, of_store
from gateway.metrics.loop_lag import LoopLag
from gateway.metrics.models import of_cache, of_memory, of_models, of_nodes
from gateway.metrics.requests import Taken, of_answers, of_requests
from gateway.responses.kept import KeptResponses


class Saved(Protocol):
    """The saved conversations, as far as metrics look at them."""

    async def report(self) -> CacheReport: ...


class Sources(NamedTuple):
    """Where the numbers are."""

    accounting: Accounting
    answers: Mapping[tuple[str, str], Mapping[int, int]]
    scheduler: Scheduler
    history: History
    lifecycle: Lifecycle
    tls: TlsState
    saved: Saved | None
    responses: KeptResponses | None


class Exposed(NamedTuple):
    """An answer for Prometheus."""

    content_type: str
    body: bytes


class Exposition:
    """The metrics of one gateway."""

    def __init__(self, sources: Sources, lag: LoopLag) -> None:
        self._sources = sources
        self._lag = lag
        self._process = of_process()

    async def expose(self, accept: str, *, connections: int, backends: bool) -> Exposed:
        """Return all metrics in the format that ``accept``, a header, asks for.

        ``backends``: with those of the llama-servers, as Prometheus's text: the library changes
        their names, ``llamacpp:...``, for OpenMetrics.
        """
        source = self._sources
        report = None if source.saved is None else await source.saved.report()
        sample = await source.history.now()
        others = await of_backends(source.scheduler) if backends else iter(())
        # Nothing is awaited until all numbers are taken: they are of one moment.
        models = source.scheduler.status()
        answers = {route: dict(statuses) for route, statuses in source.answers.items()}
        families = itertools.chain(
            [of_answers(answers)],
            of_requests(Taken.of(source.accounting), models),
            of_models(models, source.scheduler.environment.counts),
            of_memory(dict(source.history.devices), sample),
            of_nodes(source.scheduler.environment.nodes),
            of_cache(report) if report is not None else (),
            of_gateway(ready=source.lifecycle.ready, connections=connections, lag=self._lag.look()),
            of_store(
                source.accounting.log, 0 if source.responses is None else source.responses.lost
            ),
            of_certificate(source.tls),
            others,
        )
        encode, content_type = choose_encoder("" if backends else accept)
        # Thousands of lines of text take a while, in which others go on.
        body = await asyncio.to_thread(encode, _Families(families, self._process))
        return Exposed(content_type, body)


class _Families(Collector):
    """Families, and those of the process, which are made while they are written."""

    def __init__(self, families: Iterable[Metric], process: Collector) -> None:
        self._families = families
        self._process = process

    def collect(self) -> Iterator[Metric]:
        """Yield all of them."""
        yield from self._families
        yield from self._process.collect()
