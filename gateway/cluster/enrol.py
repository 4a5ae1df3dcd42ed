"""Starts the actor of a node, on the machine that it is for, and sees to the registry.

``python -m gateway.cluster.enrol`` is a program of its own: Ray's driver, which ends when the actor
works. It reads one JSON object, what :func:`order` makes, and prints one: ``error`` is ``null``, or
what went wrong. An actor of the same name that gives no answer is from a life of the node that is
over, and ended before; one that works keeps the name: ``error`` is :data:`TAKEN` then. On the
head's machine there is no node, and only the registry is seen to. A node that comes back by itself
is not started if it was removed meanwhile: ``error`` is :data:`REMOVED` then.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from gateway.cluster.actors import NodeActor, registry_of
from gateway.cluster.node_settings import NodeSettings
from gateway.cluster.told import NAMESPACE, NODE, Members

#: What is printed of a node that was removed.
REMOVED: Final = "removed"
#: The error where another node has the name, and works.
TAKEN: Final = "taken"
#: Seconds for the actor to look at its machine, for the registry to answer, and for Ray to forget
#: an actor that was ended.
_START: Final = 120.0
_ANSWER: Final = 20.0
_FORGET: Final = 15.0
#: Seconds in which an actor answers that works.
_WORKS: Final = 3.0


class _Taken(Exception):
    """Another node has the name."""


def order(
    address: str,
    host: str,
    node: tuple[str, NodeSettings] | None = None,
    *,
    by_itself: bool = False,
) -> str:
    """Return what this program reads. ``host``: the address of this machine in the cluster;
    ``by_itself``: nobody has asked for it now, it was there before.
    """
    wanted: dict[str, Any] = {"address": address, "host": host, "name": None}
    if node is not None:
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(node[1]).items()}
        wanted |= {"name": node[0], "settings": plain, "by_itself": by_itself}
    return json.dumps(wanted)


def settings_of(plain: dict[str, Any]) -> NodeSettings:
    """Return the settings in an order."""
    keys = ("llm_storage", "data_dir", "cache_dir", "dismissal")
    paths = {key: Path(plain[key]) for key in keys if plain[key] is not None}
    return NodeSettings(**{**plain, **paths})


def main(text: str) -> str | None:
    """Do what is ordered; return why that failed, if it did."""
    import ray

    wanted = json.loads(text)
    try:
        ray.init(
            address=wanted["address"],
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            # Of several nodes on one machine, that at this address. Ray has no public way to say
            # that.
            _node_ip_address=wanted["host"],
        )
        members = _see_to_registry(ray)
        if wanted["name"] is not None:
            if wanted["by_itself"] and wanted["name"] in members.removed:
                return REMOVED
            actor = _started(ray, wanted["name"], settings_of(wanted["settings"]))
            ray.get(actor.__ray_ready__.remote(), timeout=_START)
    except _Taken:
        return TAKEN
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
    return None


def _see_to_registry(ray: Any) -> Members:
    """Have a registry that answers, and return what it knows.

    When the head's machine ends in the wrong moment, Ray takes an actor for alive that went with
    it, and starts no other.
    """
    registry = registry_of(ray)
    try:
        members: Members = ray.get(registry.ask.remote("nodes", -1), timeout=_ANSWER)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        ray.kill(registry, no_restart=True)
        _again(lambda: registry_of(ray))
        return Members(0, {}, {}, None)  # a new one, which knows nothing yet
    return members


def _started(ray: Any, node: str, settings: NodeSettings) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name, here = f"{NODE}{node}", ray.get_runtime_context().get_node_id()
    options = {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "max_restarts": -1,
        "num_cpus": 0,
        "max_concurrency": 1000,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
    }

    def start() -> Any:
        with contextlib.suppress(ValueError):  # there is none
            there = ray.get_actor(name, NAMESPACE)
            if _works(ray, there):
                raise _Taken
            ray.kill(there, no_restart=True)
        return ray.remote(NodeActor).options(**options).remote(node, settings)

    return _again(start)


def _works(ray: Any, actor: Any) -> bool:
    try:
        ray.get(actor.__ray_ready__.remote(), timeout=_WORKS)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
        return False
    return True


def _again(start: Callable[[], Any]) -> Any:
    """Start an actor, as soon as the name of one that was ended is free."""
    deadline = time.monotonic() + _FORGET
    while True:
        try:
            return start()
        except ValueError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)  # Ray has no event for it


if __name__ == "__main__":
    print(json.dumps({"error": main(sys.stdin.read())}), flush=True)  # noqa: T201 - its answer
    os._exit(0)  # Ray's own end may take seconds, and there is nothing to save
