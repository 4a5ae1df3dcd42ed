"""What reports for administrators show of a node."""

from __future__ import annotations

from gateway.backends.nodes import NodeStatus
from gateway.cluster.known_node import KnownNode


def status_of(node: KnownNode) -> NodeStatus:
    """Return what they show."""
    there = node.has.condition
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
        there.llama_server,
        tuple(filter(None, (there.no_llama_server, there.storage, _unused(node)))),
        round(node.clock_off, 1),
    )


def _unused(node: KnownNode) -> str | None:
    """Return that a GPU isn't used, if there is one."""
    driver = node.has.condition.driver
    if driver is None or node.has.gpu or node.has.condition.llama_server is None:
        return None
    return f"{driver} is there, but its llama-server finds no GPU: models use the CPU"
