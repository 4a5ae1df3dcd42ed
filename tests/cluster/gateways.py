"""Whole gateways with machines that need no Ray."""

from __future__ import annotations

from collections.abc import Callable

from gateway.cluster.cluster import Cluster
from gateway.config.settings import Settings
from tests.cluster.machines import Machines, joins


def cluster_of(machines: Machines) -> Callable[[Settings], Cluster | None]:
    """What makes the cluster of a gateway: that of these machines, where one is configured."""

    def made(settings: Settings) -> Cluster | None:
        if settings.cluster is None:
            return None
        return Cluster(
            settings.cluster.address,
            settings.data_dir / "cluster",
            settings.llm_storage,
            load_timeout=settings.limits.load_timeout,
            metrics=settings.metrics.backends,
            slots=settings.cache.enabled,
            join=joins(machines),
        )

    return made
