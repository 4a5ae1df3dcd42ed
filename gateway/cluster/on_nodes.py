"""Runs on the nodes that orders name: those to be begun, and those that are found there."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.backends.logring import LogRing
from gateway.cluster.known_node import KnownNode
from gateway.cluster.run import ClusterRun
from gateway.cluster.spanning import lending
from gateway.cluster.told import Order, Ready, ServerState


def ordered(
    nodes: Mapping[str, KnownNode], node: KnownNode, order: Order, log: LogRing
) -> ClusterRun:
    """Return a run of ``order`` on ``node``, and on those that are to lend it devices."""
    lent = [nodes[helper.node].run(lending(order, helper), log) for helper in order.helpers]
    return node.run(order, log, lent)


def adopted(
    nodes: Mapping[str, KnownNode], node: KnownNode, state: ServerState, log: LogRing
) -> ClusterRun:
    """Return a run of what runs on ``node`` already, and on those that lend it devices."""
    order, lent = state.order, []
    for helper in order.helpers:
        if (there := nodes.get(helper.node)) is not None:
            part = lending(order, helper)
            ready = Ready(part.server, helper.key, helper.on, None, None)
            lent.append(there.run(part, log, ready=ready))
    run = node.run(order, log, lent, state.ready)
    for line in state.log:
        log.append(line)
    return run
