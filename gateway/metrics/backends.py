"""llama-servers' own metrics, with the model as a label: asked for only when somebody wants them.

They are asked all at once, within a bound, and whoever doesn't answer is left out: a scrape must
not wait for a llama-server that hangs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Final

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.backends.backend import State
from gateway.backends.scheduler import Scheduler
from gateway.metrics import described
from gateway.metrics.families import family
from gateway.upstream import Upstream, UpstreamError, UpstreamRequest

#: Seconds for all of them, and the most bytes that one may answer with.
WITHIN: Final = 2.0
_MOST: Final = 256 * 1024
_REQUEST: Final = UpstreamRequest("GET", "/metrics", b"", b"")
_UP: Final = (State.READY, State.DRAINING)
_log = logging.getLogger(__name__)


async def of_backends(scheduler: Scheduler, *, within: float = WITHIN) -> Iterator[Metric]:
    """Return the families of every llama-server of ours that runs.

    They tell something only if they were started with ``--metrics`` (``metrics.backends``).
    """
    asked = {
        one.name: backend.pool
        for one in scheduler.status()
        if (backend := scheduler.backend(one.name)) is not None
        and backend.state in _UP
        and backend.spec.ours
    }
    texts = await asyncio.gather(*(_ask(pool, within) for pool in asked.values()))
    return _joined(dict(zip(asked, texts, strict=True)))


async def _ask(pool: Upstream, within: float) -> str | None:
    try:
        fetched = await pool.fetch(_REQUEST, timeout=within, max_body=_MOST)
    except UpstreamError as error:
        _log.debug("no metrics of a llama-server: %s", error)
        return None
    return fetched.body.decode("utf-8", "replace") if fetched.status == 200 else None


def _joined(texts: dict[str, str | None]) -> Iterator[Metric]:
    """Yield each family once, with the samples of all models, which the format asks for."""
    joined: dict[str, Metric] = {}
    up: list[tuple[tuple[str], float]] = []
    for model, text in texts.items():
        families = _parsed(text)
        up.append(((model,), families is not None))
        for one in families or ():
            into = joined.setdefault(one.name, Metric(one.name, one.documentation, one.type))
            into.samples += [
                sample._replace(labels={**sample.labels, "model": model}) for sample in one.samples
            ]
    yield family(described.BACKEND_UP, up)
    yield from joined.values()


def _parsed(text: str | None) -> list[Metric] | None:
    if text is None:
        return None
    try:
        return [_named_as_in(text, one) for one in text_string_to_metric_families(text)]
    except ValueError as error:
        _log.warning("a llama-server's metrics cannot be read: %s", error)
        return None


def _named_as_in(text: str, one: Metric) -> Metric:
    """Return a family under the name that it has in ``text``.

    The library adds ``_total`` to a counter without it. llama-server has one, its largest number of
    tokens, which is a gauge.
    """
    if one.type != "counter" or f"{one.name}_total" in text:
        return one
    gauge = Metric(one.name, one.documentation, "gauge")
    gauge.samples = [sample._replace(name=one.name) for sample in one.samples]
    return gauge
