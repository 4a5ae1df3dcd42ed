"""Asks the head of a cluster what it is, before this machine joins it.

``python -m gateway.cluster.ask_head HOST:PORT`` is a program of its own, because Ray's client of
the head can't be told to give up; it prints one JSON object. The client is a part of Ray that it
doesn't promise to keep: it is used here alone, and what is not there any more is just not told.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from gateway.cluster.ray_command import VERSION


def main(address: str) -> dict[str, Any]:
    """Return ``ray`` and ``python`` (versions), ``version`` (of our program, or ``None``) and
    ``nodes`` (those that live: name -> address); or ``error``, with what kind of exception it was.
    """
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._raylet import GcsClient

    try:
        client = GcsClient(address=address)
        metadata = get_cluster_metadata(client) or {}
        nodes = list(client.get_all_node_info(timeout=8).values())
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    alive = [node for node in nodes if node.state == type(node).ALIVE]
    head = next((node for node in alive if node.is_head_node), None)
    return {
        "ray": metadata.get("ray_version"),
        "python": metadata.get("python_version"),
        "version": dict(head.labels).get(VERSION) if head is not None else None,
        "nodes": {node.node_name: node.node_manager_address for node in alive},
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])), flush=True)  # noqa: T201 - its answer
    os._exit(0)  # Ray's threads may not end
