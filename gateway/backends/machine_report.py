"""The devices of the machines and their memory, as JSON for HTTP answers."""

from __future__ import annotations

from typing import Any, Final

from gateway.backends.nodes import Nodes
from gateway.backends.scheduler import Scheduler

#: The age, in seconds, up to which a measurement is reported: it is asked for every second, and a
#: new one may wake up a GPU's driver.
SEEN_WITHIN: Final = 5.0


async def machine_report(scheduler: Scheduler) -> dict[str, Any] | None:
    """Return the devices and what is free of them; ``None`` until they have been looked at once."""
    await scheduler.see_memory(within=SEEN_WITHIN)
    capacity = scheduler.accounts.capacity if scheduler.accounts is not None else None
    return capacity.report() if capacity is not None else None


def nodes_report(nodes: Nodes | None) -> list[dict[str, Any]]:
    """Return every machine of the cluster that has been heard of, with what runs there."""
    return [
        {
            "name": node.name,
            "up": node.up,
            "drained": node.drained,
            "problem": node.problem,
            "host": node.host,
            "version": node.version,
            "gpu": node.gpu,
            "no_rpc": node.no_rpc,
            "devices": list(node.devices),
            "models": list(node.servers),
            "llama_server": node.llama_server,
            "troubles": list(node.troubles),
            "clock_off": node.clock_off,
        }
        for node in (nodes.report() if nodes is not None else ())
    ]
