"""The parts of a gateway that it has only where they are configured: who has none of them starts
without importing them.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from gateway.backends.decision import SchedulingLimits
from gateway.config.settings import Settings
from gateway.streams.kept import KeptStreams

if TYPE_CHECKING:
    from gateway.backends.backend import Environment
    from gateway.backends.nodes import Nodes
    from gateway.backends.pulls import Pulls
    from gateway.backends.pulls_on_nodes import PullsOnNodes
    from gateway.cluster.cluster import Cluster
    from gateway.conversations.keeper import Conversations
    from gateway.responses.kept import KeptResponses

#: Seconds that streams of responses can be read again after their end, where no others can.
_STREAMS_OF_RESPONSES: Final = 120.0


def limits_of(settings: Settings, budget: int | None = None) -> SchedulingLimits:
    """Return the limits of the scheduler; ``budget``: bytes for models on this machine."""
    placement = settings.cluster.placement if settings.cluster is not None else "pack"
    return SchedulingLimits(settings.scheduler.max_loaded, budget, placement=placement)


def cluster_of(settings: Settings) -> Cluster | None:
    """Return the cluster of ``settings``, if there is to be one."""
    if settings.cluster is None:
        return None
    from gateway.cluster.cluster import Cluster

    return Cluster(
        settings.cluster.address,
        settings.data_dir / "cluster",
        settings.llm_storage,
        load_timeout=settings.limits.load_timeout,
        metrics=settings.metrics.backends,
        slots=settings.cache.enabled,
        shared=settings.store.url is not None,
    )


def pulls_on_nodes_of(
    settings: Settings, environment: Environment, pulls: Pulls
) -> PullsOnNodes | None:
    """Return what has models fetched by nodes, if there is a cluster."""
    if environment.nodes is None:
        return None
    from gateway.backends.pulls_on_nodes import PullsOnNodes

    return PullsOnNodes(
        environment.nodes,
        pulls,
        lambda: environment.for_children,
        settings.llm_storage,
        settings.models_file,
    )


def conversations_of(settings: Settings, nodes: Nodes | None) -> Conversations | None:
    """Return what saves conversations, also on ``nodes``, if they are to be saved."""
    cache = settings.cache
    if not cache.enabled:
        return None
    from gateway.conversations.keeper import Conversations

    return Conversations(
        settings.cache_dir,
        max_size=cache.max_size,
        max_age=cache.max_age,
        min_tokens=cache.min_tokens,
        nodes=nodes,
    )


def responses_of(settings: Settings) -> KeptResponses | None:
    """Return what keeps responses, if they are to be kept."""
    kept = settings.responses
    if not kept.store:
        return None
    from gateway.responses.kept import KeptResponses

    # Those under way are read again like any stream, for a while after their end.
    streams = settings.streams
    keep = streams.keep if streams.keep is not None else _STREAMS_OF_RESPONSES
    return KeptResponses(
        max_age=kept.max_age,
        max_size=kept.max_size,
        # A file of SQLite has one gateway, whose host's name may be another after each start.
        name=f"{socket.gethostname()}:{settings.data_dir}" if settings.store.url else "this",
        streams=KeptStreams(keep=keep, max_size=streams.max_size),
    )
