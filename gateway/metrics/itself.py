"""The metrics of the gateway itself: process, event loop, connections, database, certificate."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric, PlatformCollector, ProcessCollector
from prometheus_client.gc_collector import GCCollector

from gateway import __version__
from gateway.access.measures import Histogram
from gateway.access.request_log import RequestLog
from gateway.http.tls_state import TlsState
from gateway.metrics import described
from gateway.metrics.families import family, histogram, single


def of_process() -> CollectorRegistry:
    """Return a registry of what the library knows of a Python process: ``process_...`` and
    ``python_...``.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def of_gateway(*, ready: bool, connections: int, lag: Histogram) -> Iterator[Metric]:
    """Yield the families of its state."""
    versions = (__version__, platform.python_version())
    yield family(described.BUILD, [(versions, 1)])
    yield single(described.READY, ready)
    yield single(described.CONNECTIONS, connections)
    yield histogram(described.LAG, [((), lag)])


def of_store(log: RequestLog, lost_responses: int) -> list[Metric]:
    """Return the families of what is still to be written, and what could not be."""
    return [
        single(described.UNWRITTEN, log.unwritten),
        single(described.STORE_LAG, log.lag),
        single(described.LOST, log.lost),
        single(described.LOST_RESPONSES, lost_responses),
    ]


def of_certificate(tls: TlsState) -> Iterator[Metric]:
    """Yield the family of the certificate's end, if there is one."""
    if tls.certificate is not None:
        yield single(described.EXPIRY, tls.certificate.not_after.timestamp())
