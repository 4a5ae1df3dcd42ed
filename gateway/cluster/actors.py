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

from gateway import open_files
from gateway.cluster.node import Node
from gateway.cluster.node_settings import NodeSettings
from gateway.cluster.placement_groups import release, reserved
from gateway.cluster.registry import ANNOUNCE_EVERY, Registry
from gateway.cluster.told import NAMESPACE, REGISTRY, is_resource
from gateway.tasks import spawn

_log = logging.getLogger(__name__)

#: The resource that Ray gives the head, and nothing else.
_ON_THE_HEAD = "node:__internal_head__"
#: Seconds between two looks for what is reserved and nobody's.
_SWEEP = 30.0


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
        open_files.allow_all()
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
                node = self._node
                told = registry_of(ray).ask.remote("announce", node.name, node.boot, node.claims)
                if not ray.get(told, timeout=ANNOUNCE_EVERY):
                    self._loop.wait(node.dismiss())  # who removed it could not reach it
            except Exception as error:  # the head is away, or the registry is being started anew
                _log.warning("the node cannot announce itself: %s", type(error).__name__)
            time.sleep(ANNOUNCE_EVERY)


class RegistryActor:
    """The actor of the registry, which also gives back what nobody else will."""

    def __init__(self) -> None:
        self._registry = Registry()
        self._sweeping: asyncio.Task[None] | None = None

    async def ask(self, what: str, *arguments: Any) -> Any:
        """Call a method of the registry."""
        if self._sweeping is None:
            self._sweeping = spawn(self._sweep(), name="give back what is nobody's")
        method: Callable[..., Awaitable[Any]] = getattr(self._registry, what)
        return await method(*arguments)

    async def _sweep(self) -> None:
        """Give back what is reserved for llama-servers that no node has, nor will have."""
        while True:
            await asyncio.sleep(_SWEEP)
            try:
                there = await asyncio.to_thread(reserved)
                ours = [name for name, of in there.items() if all(map(is_resource, of))]
                for name in self._registry.unclaimed(ours):
                    _log.warning("giving back what is reserved for %s: no node has it", name)
                    await asyncio.to_thread(release, name)
            except Exception as error:  # it is tried again, and nothing else depends on it
                _log.warning("what is reserved cannot be looked at: %s", error)


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
