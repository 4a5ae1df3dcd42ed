"""The Ray actors: each only passes on what is asked to an object on an event loop of its own.

Ray imports this by name on each node. The loop is a thread that lives as long as the process: the
kernel ends llama-servers when the thread that started them ends (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from gateway.cluster.node import Node
from gateway.cluster.node_settings import NodeSettings
from gateway.cluster.registry import ANNOUNCE_EVERY, Registry
from gateway.cluster.told import NAMESPACE, REGISTRY

_log = logging.getLogger(__name__)

#: The resource that Ray gives the head, and nothing else.
_ON_THE_HEAD = "node:__internal_head__"


class _Loop:
    """An event loop in a thread."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=name, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Run ``work`` there; what is returned can be awaited here."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run ``work`` there, and wait for it here."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class NodeActor:
    """The actor of one node; its methods are those of :class:`Node`."""

    def __init__(self, name: str, settings: NodeSettings) -> None:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        self._loop = _Loop(f"node {name}")
        self._node = self._loop.wait(self._open(name, settings))
        threading.Thread(target=self._announce, name="announce", daemon=True).start()

    async def _open(self, name: str, settings: NodeSettings) -> Node:
        node = Node(name, settings)
        await node.open()
        return node

    async def ask(self, what: str, *arguments: Any) -> Any:
        """Call a method of the node. Raises what that raises."""
        method: Callable[..., Coroutine[Any, Any, Any]] = getattr(self._node, what)
        return await self._loop.run(method(*arguments))

    def _announce(self) -> None:
        """Announce the node to the registry, for as long as this process lives."""
        import ray

        while True:
            try:
                told = registry_of(ray).ask.remote("announce", self._node.name, self._node.boot)
                ray.get(told, timeout=ANNOUNCE_EVERY)
            except Exception as error:  # the head is away, or the registry is being started anew
                _log.warning("the node cannot announce itself: %s", type(error).__name__)
            time.sleep(ANNOUNCE_EVERY)


class RegistryActor:
    """The actor of the registry."""

    def __init__(self) -> None:
        self._registry = Registry()

    async def ask(self, what: str, *arguments: Any) -> Any:
        """Call a method of the registry."""
        method: Callable[..., Awaitable[Any]] = getattr(self._registry, what)
        return await method(*arguments)


def registry_of(ray: Any) -> Any:
    """Return a handle of the registry, started by whoever asks first."""
    return (
        ray.remote(RegistryActor)
        .options(
            name=REGISTRY,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            num_cpus=0,
            max_concurrency=1000,
            # On the head, also after a restart: as long as it answers, the head does.
            resources={_ON_THE_HEAD: 0.001},
        )
        .remote()
    )
