"""The metrics of models, of the memory that they are in, and of their saved conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import Metric

from gateway.backends.backend import State
from gateway.backends.counts import Ended, ModelCounts, Unloaded
from gateway.backends.model_status import ModelStatus
from gateway.backends.nodes import Nodes
from gateway.conversations.counts import CacheReport
from gateway.metrics import described
from gateway.metrics.families import family, single
from gateway.samples import Sample


def of_models(models: list[ModelStatus], counts: ModelCounts) -> Iterator[Metric]:
    """Yield the families of what models do, and did.

    Counters begin at 0: Prometheus sees no increase in a series that begins at 1.
    """
    yield family(
        described.STATE,
        (((one.name, state.value), one.state is state) for one in models for state in State),
    )
    yield family(described.SLOTS, (((one.name,), one.slots) for one in models))
    yield family(
        described.MODEL_MEMORY,
        (((one.name, device), size) for one in models for device, size in one.memory_on.items()),
    )
    yield family(
        described.UNLOADS,
        (
            ((one.name, reason.value), counts.unloads[one.name, reason])
            for one in models
            for reason in Unloaded
        ),
    )
    yield family(described.SWAPS, (((one.name,), counts.swaps[one.name]) for one in models))
    yield family(
        described.RESTARTS,
        (
            ((one.name, reason.value), counts.ends[one.name, reason])
            for one in models
            for reason in Ended
        ),
    )


def of_memory(devices: Mapping[str, tuple[str, int]], now: Sample) -> Iterator[Metric]:
    """Yield the families of the machine's memory; ``devices``: see :class:`History`."""
    yield family(described.MEMORY, (((name,), total) for name, (_, total) in devices.items()))
    yield family(described.MEMORY_USED, (((name,), used) for name, used in now.used))


def of_nodes(nodes: Nodes | None) -> Iterator[Metric]:
    """Yield the families of the other machines of the cluster."""
    known = nodes.report() if nodes is not None else []
    devices = [(one.name, device) for one in known if one.up for device in one.devices]
    yield family(described.NODE_UP, (((one.name,), one.up) for one in known))
    yield family(
        described.NODE_MEMORY,
        (((name, device["name"]), device["for_models"]) for name, device in devices),
    )
    yield family(
        described.NODE_FREE,
        (
            ((name, device["name"]), device["free"])
            for name, device in devices
            if device["free"] is not None
        ),
    )


def of_cache(report: CacheReport) -> Iterator[Metric]:
    """Yield the families of saved conversations."""
    models = report.models.items()
    for of, disk, slot in (
        (described.CACHE_HITS, "hits", "slot_hits"),
        (described.CACHE_TOKENS, "tokens", "slot_tokens"),
    ):
        yield family(
            of,
            (
                ((name, source), getattr(one, field))
                for name, one in models
                for source, field in (("disk", disk), ("slot", slot))
            ),
        )
    yield family(described.CACHE_READ, (((name,), one.bytes_read) for name, one in models))
    yield family(described.CACHE_WRITTEN, (((name,), one.bytes_written) for name, one in models))
    yield family(
        described.CACHE_CONVERSATIONS, (((name,), one.conversations) for name, one in models)
    )
    yield family(described.CACHE_SIZE, (((name,), one.size) for name, one in models))
    yield single(described.CACHE_BUDGET, report.budget)
