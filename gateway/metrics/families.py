"""Families of samples, as the library takes them, of metrics that are described here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import Metric
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.utils import floatToGoString

from gateway.access.measures import Histogram
from gateway.metrics.described import Described

#: One value, with a label for each that the metric has.
Labelled = tuple[Sequence[str], float]


def family(of: Described, values: Iterable[Labelled]) -> Metric:
    """Return the family of a counter or a gauge."""
    kind = CounterMetricFamily if of.kind == "counter" else GaugeMetricFamily
    made = kind(of.family, of.about, labels=of.labels)
    for labels, value in values:
        made.add_metric(labels, value)
    return made


def single(of: Described, value: float) -> Metric:
    """Return the family of a counter or a gauge without labels."""
    return family(of, [((), value)])


def histogram(of: Described, values: Iterable[tuple[Sequence[str], Histogram]]) -> Metric:
    """Return the family of a histogram."""
    made = HistogramMetricFamily(of.family, of.about, labels=of.labels)
    for labels, (bounds, counts, total) in values:
        ends = (*map(floatToGoString, bounds), "+Inf")
        made.add_metric(labels, list(zip(ends, counts, strict=True)), total)
    return made
