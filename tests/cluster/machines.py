"""Machines of a cluster in one process: nodes and a registry, which are called without Ray."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from gateway.backends.accounts import Accounts
from gateway.backends.decision import SchedulingLimits
from gateway.backends.memory import Needs
from gateway.backends.scheduler import Scheduler
from gateway.cluster.cluster import Cluster
from gateway.cluster.link import ANSWER, Link, Refused, Unreachable
from gateway.cluster.node import Node
from gateway.cluster.node_settings import NodeSettings
from gateway.cluster.registry import Registry
from gateway.cluster.told import NODE, REGISTRY, is_resource
from gateway.errors import GatewayError
from gateway.models.model import Model
from gateway.tasks import spawn
from tests.scripted import FAKE, Box, catalog_of


class Machines:
    """The machines, as Ray would know them: what is ``lost`` gives no answer any more."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.registry = Registry()
        self.nodes: dict[str, Node] = {}
        self.reserved: dict[str, dict[str, float]] = {}
        #: Nodes of which Ray has nothing left.
        self.full: set[str] = set()
        self.links: list[Joined] = []  # of all gateways
        self.head_is_away = False
        self._gone: dict[str, asyncio.Event] = {}
        self._cut_off: set[str] = set()
        self._hung: set[str] = set()

    async def start(self, name: str, **settings: Any) -> Node:
        """Start a machine, which announces itself."""
        options = {
            "llama_server": str(FAKE),
            "llm_storage": self.box.folder,
            "data_dir": self.box.folder / f"data-{name}",
            "cache_dir": self.box.folder / f"cache-{name}",
            "host": "127.0.0.1",
            **settings,
        }
        node = self.nodes[name] = Node(name, NodeSettings(**options))
        await node.open()
        self._gone[name] = asyncio.Event()
        await self.registry.announce(name, node.boot)
        return node

    async def lose(self, name: str) -> None:
        """Have a machine vanish, with all that runs on it."""
        node = self.nodes.pop(name)
        self._gone.pop(name).set()
        await node.close()

    def hang(self, name: str) -> None:
        """Have a machine answer nothing from now on, and nobody hear of it."""
        self._hung.add(name)

    def go_on(self, name: str) -> None:
        """End that."""
        self._hung.discard(name)

    def cut_off(self, name: str) -> None:
        """Have a machine give no answer, while all goes on there."""
        self._cut_off.add(name)
        self._gone[name].set()

    def reach_again(self, name: str) -> None:
        """End that."""
        self._gone[name] = asyncio.Event()
        self._cut_off.discard(name)

    async def close(self) -> None:
        for name in list(self.nodes):
            await self.lose(name)

    async def call(self, actor: str, method: str, *arguments: Any) -> Any:
        if actor == REGISTRY:
            if self.head_is_away:
                raise Unreachable("ActorUnavailableError: the head is away")
            return await getattr(self.registry, method)(*arguments)
        name = actor.removeprefix(NODE)
        node = self.nodes.get(name)
        if node is None or name in self._cut_off:
            raise Unreachable("ActorDiedError: the node is gone", final=True)
        asked = spawn(getattr(node, method)(*arguments), name=f"{method} of {name}")
        gone = spawn(self._gone[name].wait(), name=f"end of {name}")
        try:
            await asyncio.wait([asked, gone], return_when=asyncio.FIRST_COMPLETED)
            if name in self._hung:
                await asyncio.Event().wait()
            if gone.done():
                raise Unreachable("ActorDiedError: the node is gone", final=True)
            return asked.result()
        except (GatewayError, ValueError, KeyError, OSError) as error:
            if isinstance(error, Unreachable):
                raise
            raise Refused(type(error).__name__, str(error)) from error
        finally:
            gone.cancel()
            asked.cancel()


class Joined(Link):
    """A link to ``machines`` in place of one to Ray, whose driver is a process."""

    machines: Machines
    asked: set[asyncio.Task[Any]]

    def open(self) -> None:
        self.joined, self.problem = True, None

    async def close(self) -> None:
        self.joined, self.problem = False, "closed"

    def lose(self) -> None:
        """As when the driver dies; :meth:`open` joins again."""
        self.joined, self.problem = False, "its driver has ended"
        for asked in self.asked:
            asked.cancel()
        self._changed()

    async def call(self, actor: str, method: str, *arguments: Any, within: float = ANSWER) -> Any:
        try:
            async with asyncio.timeout(within):
                return await self._call(actor, method, *arguments)
        except TimeoutError:
            raise Unreachable("no answer", late=True) from None

    async def _call(self, actor: str, method: str, *arguments: Any) -> Any:
        if not self.joined:
            raise Unreachable("Ray is not joined")
        asked = spawn(self.machines.call(actor, method, *arguments), name=f"call {method}")
        self.asked.add(asked)
        try:
            return await asked
        except asyncio.CancelledError:
            if self.joined:
                raise
            raise Unreachable("Ray is not joined") from None
        finally:
            asked.cancel()
            self.asked.discard(asked)

    async def kill(self, actor: str) -> None:
        if (name := actor.removeprefix(NODE)) not in self.machines.nodes:
            raise Refused("ValueError", f"there is no actor {actor}")
        await self.machines.lose(name)

    async def reserve(self, name: str, resources: dict[str, float]) -> None:
        if any(is_resource(one, node) for one in resources for node in self.machines.full):
            raise Refused("TimeoutError", f"Ray has not so much left: {resources}")
        self.machines.reserved[name] = resources

    async def reserved(self, prefix: str) -> dict[str, tuple[str, ...]]:
        there = self.machines.reserved
        return {name: tuple(of) for name, of in there.items() if name.startswith(prefix)}

    async def release(self, name: str) -> None:
        self.machines.reserved.pop(name, None)


def joins(machines: Machines) -> Callable[[str, Callable[[], None], Path], Link]:
    def join(address: str, changed: Callable[[], None], folder: Path) -> Link:
        link = Joined(address, changed)
        link.asked, link.machines = set(), machines
        machines.links.append(link)
        return link

    return join


@contextlib.asynccontextmanager
async def gateway_of(
    machines: Machines, *specs: Model, folder: Path, shared: bool = False, **limits: Any
) -> AsyncIterator[tuple[Scheduler, Cluster]]:
    """A scheduler and its cluster, as a gateway puts them together."""
    box = machines.box
    cluster = Cluster(
        "auto",
        folder,
        box.folder,
        load_timeout=20.0,
        metrics=False,
        shared=shared,
        join=joins(machines),
    )
    scheduler = Scheduler(
        catalog_of(*specs),
        box.environment(nodes=cluster),
        SchedulingLimits(),
        queue_size=16,
        queue_timeout=20.0,
        memory_known=False,
    )
    cluster.changed, cluster.found = scheduler.nodes.changed, scheduler.nodes.adopt
    cluster.drained_node, cluster.load = scheduler.nodes.move_off, scheduler.nodes.load_wanted

    async def remember(key: str, size: int) -> None:
        pass

    scheduler.watch_memory(
        Accounts(Needs(box.folder, {}, remember), None, {}),
        SchedulingLimits(**{"short_for": 1.0, **limits}),
    )
    await cluster.open()
    try:
        yield scheduler, cluster
    finally:
        await scheduler.close()
        await cluster.close()


async def up(cluster: Cluster, *names: str) -> None:
    """Wait until the cluster knows that these nodes, and no others, are up."""
    async with asyncio.timeout(10):
        while {status.name for status in cluster.report() if status.up} != set(names):
            await asyncio.sleep(0.02)  # it tells nobody else
