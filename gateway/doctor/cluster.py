"""What is wrong with the cluster in gateway.yaml, and in the entries that count on it. Blocking."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.cluster.installed import has_ray_client, why_no_ray
from gateway.config.head_address import CLIENT
from gateway.config.settings import Settings
from gateway.models.catalog import Catalog
from gateway.problems import Problem


def problems(settings: Settings, label: str) -> list[Problem]:
    """Return what keeps the cluster from being used. ``label``: of the configuration."""
    if settings.cluster is None:
        return []
    if (reason := why_no_ray()) is not None:
        return [Problem(label, "cluster", None, reason)]
    address = settings.cluster.address
    if address.startswith(CLIENT) and not has_ray_client():
        what = "needs Ray Client, which isn't installed: pip install 'ray[client]'"
        return [Problem(label, "cluster.address", repr(address), what)]
    return []


def warnings(settings: Settings, catalog: Catalog) -> Iterator[str]:
    """Yield what of the entries has no effect without a cluster."""
    if settings.cluster is not None:
        return
    for spec in catalog.ours:
        if spec.nodes:
            yield f"{spec.name}: nodes has no effect: there is no cluster in gateway.yaml"
        if spec.replicas > 1:
            yield f"{spec.name}: replicas has no effect: there is no cluster in gateway.yaml"
        if spec.machines > 1:
            yield f"{spec.name}: machines has no effect: there is no cluster in gateway.yaml"
