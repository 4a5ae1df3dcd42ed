"""What reports for administrators show of a node."""

from __future__ import annotations

from gateway.backends.nodes import NodeStatus
from gateway.cluster.known_node import KnownNode


def status_of(node: KnownNode) -> NodeStatus:
    """Return what they show."""
    return NodeStatus(
        node.name,
        node.up,
        node.drained,
        node.problem,
        node.host,
        node.version,
        node.has.gpu,
        node.has.rpc.problem,
        tuple(node.has.report.get("devices", ())),
        tuple(run.order.spec.name for run in node.runs),
    )
