"""The cluster of one gateway: the nodes that there are, and what it runs on them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.backends.nodes import NodeStatus, Terms
from gateway.backends.placement import Demand, Memory
from gateway.backends.run import NODE_LOST
from gateway.cluster.demands import Demands
from gateway.cluster.drains import Drains
from gateway.cluster.group import Group, nobody_loads
from gateway.cluster.identity import Identity
from gateway.cluster.known_node import KnownNode
from gateway.cluster.link import Link, Unreachable
from gateway.cluster.node_status import status_of
from gateway.cluster.on_nodes import adopted, ordered
from gateway.cluster.own_files import OwnFiles
from gateway.cluster.remembered import Known, Remembered, known
from gateway.cluster.remote_pulls import RemotePulls
from gateway.cluster.run import ClusterRun
from gateway.cluster.saved_slots import SavedOnNodes
from gateway.cluster.sought import SoughtRun
from gateway.cluster.told import REGISTRY, Helper, Members, Order, ServerState
from gateway.errors import GatewayError, LoadFailed
from gateway.models.local_model import LocalModel
from gateway.tasks import cancel_and_wait, spawn, spawn_lasting

if TYPE_CHECKING:
    from gateway.backends.logring import LogRing

_log = logging.getLogger(__name__)

#: Seconds until the registry is asked again, when it gave no answer.
_AGAIN: Final = 1.0
#: Seconds after the start within which nodes are waited for: what runs there is not to be started
#: once more.
_SETTLES: Final = 5.0
#: Seconds within which what another gateway has loaded must have turned up on its node.
_TURN_UP: Final = 15.0
#: Seconds that the requests of other gateways may take to end before a llama-server does.
_PATIENCE: Final = 600.0


class Cluster:
    """The cluster at ``address``. Its identity and its authority are kept in ``folder``.

    ``changed`` is called when a node has come, gone or told something on which decisions depend;
    ``found`` with a llama-server that an earlier life of this gateway has left on a node, and
    returns whether it is wanted. Both may be set later, before :meth:`open`.
    """

    def __init__(
        self,
        address: str,
        folder: Path,
        llm_storage: Path,
        *,
        load_timeout: float,
        metrics: bool,
        slots: bool = False,
        shared: bool = False,
        join: Callable[[str, Callable[[], None], Path], Link] = Link,
    ) -> None:
        """``slots``: whether conversations are told apart. ``shared``: other gateways may have the
        same identity, which share all that runs on nodes. ``join`` makes the link to Ray at an
        address; in ``folder`` may be a token for it.
        """
        self.shared = shared
        self._group: Group | None = None
        self._sought: dict[str, list[tuple[LogRing, asyncio.Future[ClusterRun]]]] = {}
        #: Loads a model that another gateway of the group wants.
        self.load: Callable[[str], Awaitable[None]] = nobody_loads
        self._load_timeout = load_timeout
        self._metrics = metrics
        # Of several gateways none knows what the others have put into slots.
        self._slots = slots and not shared
        self._link = join(address, self._link_changed, folder)
        self._nodes: dict[str, KnownNode] = {}
        self._boots: dict[str, str] = {}  # the last life of each that was heard of
        self._there: frozenset[str] = frozenset()  # those that the registry knows
        self._remembered = Remembered(folder / "nodes.json")
        self._forgotten: set[asyncio.Task[None]] = set()
        self._opened = 0.0
        self._may_settle = False
        self._identity = Identity(folder, self._meet_again)
        self._own_files = OwnFiles(llm_storage, folder / "hashes.json", self._identity.giving)
        self._demands = Demands(self._nodes, llm_storage, self._own_files, shared=shared)
        self._drains = Drains(
            *(self._nodes, self._boots, self._link, folder),
            changed=self._drains_changed,
            forget=self._forget,
        )
        #: What it has fetched from the hub by nodes.
        self.pulls = RemotePulls(self._nodes)
        self._watching: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._gateway = ""
        #: Why the registry gives no answer, if it doesn't: the head may be away.
        self._away: str | None = "not joined yet"
        self.changed: Callable[[], None] = lambda: None
        #: What its llama-servers have written of their slots on nodes.
        self.saved = SavedOnNodes(self._nodes, lambda: self._gateway)
        #: Called with the name of a node when it is to be drained.
        self.drained_node: Callable[[str], None] = lambda node: None
        self.found: Callable[[LocalModel, Callable[[LogRing], ClusterRun]], bool] = (
            lambda spec, adopt: False
        )

    async def open(self) -> None:
        """Begin to join the cluster. Raises ``OSError`` where ``folder`` can't be used."""
        remembered = await asyncio.to_thread(self._load)
        self._opened = time.monotonic()
        self._link.open()
        self._watching = spawn_lasting(self._watch, name="watch the registry of nodes")
        self._keeping = spawn_lasting(self._identity.keep, name="renew the certificate for nodes")
        self._drains.gateway, self._drains.shared = self._gateway, self.shared
        for name, one in remembered.items():
            node, self._boots[name] = self._know(name), one.boot
            node.host, node.version = one.host, one.version
        if self.shared:
            self._group = Group(
                self._gateway,
                self._link,
                load=lambda model: self.load(model),
                changed=self._places_changed,
            )

    async def close(self) -> None:
        """Leave it; llama-servers on nodes go on for as long as they wait for a gateway."""
        await cancel_and_wait(self._watching, self._keeping)
        await self._remembered.keep(known(self._nodes, self._boots))
        await asyncio.gather(self._drains.close(), self._own_files.close())
        if self._group is not None:
            await self._group.close()
        await asyncio.gather(*(node.close() for node in self._nodes.values()), *self._forgotten)
        await self._link.close()

    def _load(self) -> Mapping[str, Known]:
        self._identity.open()
        self.pulls.gateway = self._gateway = self._identity.gateway
        self._drains.load()
        return self._remembered.load()

    # --- nodes ---------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[KnownNode, ...]:
        """Every node that has been heard of, those that are lost among them."""
        return tuple(self._nodes.values())

    def _link_changed(self) -> None:
        for node in self._nodes.values():
            node.wake()
        self.changed()

    async def _watch(self) -> None:
        version = -1
        while True:
            try:
                told: Members = await self._link.call(REGISTRY, "nodes", version, self._gateway)
                version, boots = told.version, told.boots
                await self._drains.hear(told.drained)
            except GatewayError as error:
                self._note(error.message)
                version = -1
                await asyncio.sleep(_AGAIN)
                continue
            self._note(None)
            for name, boot in list(self._boots.items()):
                if told.removed.get(name) == boot and name not in boots:
                    self._forget(name)  # by another gateway
            for name, boot in boots.items():
                if name not in self._nodes:
                    self._know(name)
                elif self._boots.get(name) != boot:
                    self._nodes[name].wake()
            self._boots |= boots
            self._there = frozenset(boots)
            await self._remembered.keep(known(self._nodes, self._boots))

    def _know(self, name: str) -> KnownNode:
        node = self._nodes[name] = KnownNode(
            name,
            self._gateway,
            self._link,
            self._identity.context,
            certify=self._identity.certify,
            found=self._server_found,
            sources=self._demands.sources,
            places=lambda: self.places,
            changed=self._node_changed,
            met=lambda name: self.saved.met(name),
            pulls=self.pulls,
        )
        node.drained = name in self._drains.names
        node.patience = _PATIENCE if self.shared else 0.0
        return node

    def _meet_again(self) -> None:
        for node in self._nodes.values():
            node.meet_again()

    def _places_changed(self) -> None:
        self._meet_again()  # what the gateway that placed before has left, this one has to judge
        self.changed()

    def _note(self, problem: str | None) -> None:
        if problem != self._away:
            if problem is not None and self._away is None:
                _log.warning("the head of the cluster gives no answer: %s", problem)
            elif problem is None:
                _log.info("the head of the cluster answers")
            self._away = problem

    def _node_changed(self) -> None:
        self._demands.clear()
        self.changed()

    def _server_found(self, node: KnownNode, state: ServerState) -> bool:
        if state.ready is None:
            return False
        if sought := self._sought.get(state.order.spec.name):
            log, found = sought.pop(0)
            if not sought:
                del self._sought[state.order.spec.name]
            if not found.done():
                found.set_result(adopted(self._nodes, node, state, log))
                return True
        return self.found(state.order.spec, lambda log: adopted(self._nodes, node, state, log))

    @property
    def head_problem(self) -> str | None:
        """Why the head of the cluster gives no answer; None: it does."""
        return self._away

    def report(self) -> list[NodeStatus]:
        """Return every node that has been heard of."""
        return [status_of(node) for _, node in sorted(self._nodes.items())]

    @property
    def drained(self) -> frozenset[str]:
        """The names of the nodes that take no more models, and that models leave."""
        return self._drains.names

    async def drain(self, name: str) -> None:
        """Let a node take no more models, also after a restart. See :meth:`Drains.set`."""
        await self._drains.set(name, True)

    async def resume(self, name: str) -> None:
        """Let it take models again. See :meth:`Drains.set`."""
        await self._drains.set(name, False)

    async def remove(self, name: str) -> None:
        """Drain a node, and forget it when nothing runs there. See :meth:`Drains.remove`."""
        await self._drains.remove(name)

    def _drains_changed(self, left: Iterable[str]) -> None:
        self._node_changed()
        if self.places:  # who doesn't is told by its llama-servers
            for name in left:
                self.drained_node(name)

    def _forget(self, name: str) -> None:
        """Know a node no more that was removed; other gateways' news of it may come first."""
        if (node := self._nodes.pop(name, None)) is None:
            return
        self._boots.pop(name, None)
        for run in node.runs:
            run.lose(f"its node {name!r} has been removed")
        self.pulls.lose(name, "was removed")
        self.saved.removed(name)
        self._forgotten.add(closing := spawn(node.close(), name=f"forget the node {name}"))
        closing.add_done_callback(self._forgotten.discard)
        self._node_changed()

    # --- what the scheduler and the backends ask -------------------------------------------------

    def memory(self) -> Mapping[str, Memory]:
        """Return the memory of each node that takes models."""
        return {node.name: node.memory for node in self._nodes.values() if node.takes_models}

    def demand(self, spec: LocalModel, demand: Demand) -> Demand:
        """Return ``demand``, of this machine, with what is known of ``spec``'s on each node."""
        return self._demands.of(spec, demand)

    def knows(self, spec: LocalModel) -> bool:
        """Return whether the nodes have said what ``spec`` needs there."""
        return self._settled and self._demands.knows(spec)

    def takes(self, spec: LocalModel) -> bool:
        """Return whether there is a node where ``spec`` may run."""
        return self._demands.takes(spec)

    def alone(self, spec: LocalModel) -> str | None:
        """Return why ``spec``, which may span machines, doesn't; None: it may not, or does."""
        return self._demands.alone(spec)

    async def look_up(self, spec: LocalModel) -> None:
        """Ask the nodes what ``spec`` needs there."""
        await self._demands.look_up(spec)

    def problem(self, spec: LocalModel) -> str | None:
        """Return why no node takes ``spec``, if none does; None: some node does."""
        return self._demands.problem(spec, self._away)

    @property
    def _settled(self) -> bool:
        """Whether all nodes have told what runs on them already, or have had the time to."""
        if not self._may_settle and time.monotonic() < self._opened + _SETTLES:
            up = {node.name for node in self._nodes.values() if node.up}
            self._may_settle = self._away is None and up >= self._there and bool(self._there)
            return self._may_settle
        return True

    @property
    def places(self) -> bool:
        """Whether this gateway decides what runs where on nodes."""
        return self._group is None or self._group.places

    def sought(self, spec: LocalModel, log: LogRing) -> SoughtRun:
        """Return a run of ``spec`` that the gateway which places models is asked for."""
        return SoughtRun(self, spec, log)

    async def seek(self, spec: LocalModel, log: LogRing) -> ClusterRun:
        """Have another gateway load ``spec``, and return a run of it. Raises LoadFailed; so that it
        is placed anew where that gateway is gone, and this one places from now on.
        """
        assert self._group is not None
        for node in self._nodes.values():
            if node.up and (state := node.spare(spec)) is not None:
                return adopted(self._nodes, node, state, log)
        found: asyncio.Future[ClusterRun] = asyncio.get_running_loop().create_future()
        entry = (log, found)
        self._sought.setdefault(spec.name, []).append(entry)
        wanting = spawn(self._want(spec.name), name=f"want {spec.name}")
        placing = spawn(self._group.placing(), name="wait to place models")
        try:
            any_of: list[asyncio.Future[Any]] = [found, wanting, placing]
            await asyncio.wait(any_of, return_when=asyncio.FIRST_COMPLETED)
            if not found.done() and placing.done():
                while self._comes(spec.name) and not found.done():
                    await asyncio.wait([found], timeout=_AGAIN)
            if not found.done() and placing.done():
                raise LoadFailed("the gateway that placed models is gone.", code=NODE_LOST)
            if not found.done() and (failed := wanting.result()) is not None:
                raise failed
            async with asyncio.timeout(_TURN_UP):
                return await found
        except TimeoutError:
            what = f"the gateway that places models has loaded {spec.name!r}, but it isn't there"
            raise LoadFailed(what) from None
        finally:
            await cancel_and_wait(wanting, placing)
            waiting = self._sought.get(spec.name, [])
            if entry in waiting:
                waiting.remove(entry)
                if not waiting:
                    del self._sought[spec.name]

    def _comes(self, model: str) -> bool:
        """Return whether a node is loading ``model`` for another gateway of the group."""
        return any(node.comes(model) for node in self._nodes.values())

    async def _want(self, model: str) -> LoadFailed | None:
        """Have another gateway load ``model``, and return why it can't."""
        assert self._group is not None
        try:
            error = await self._group.want(model)
        except Unreachable as away:
            return LoadFailed(
                f"{model!r} cannot be loaded: the gateway that places models isn't reached.",
                detail=away.message,
                code="cluster_unreachable",
            )
        return None if error is None else LoadFailed(error[1], code=error[0])

    def run(self, spec: LocalModel, node: str, log: LogRing, terms: Terms) -> ClusterRun:
        """Return a run of ``spec`` on ``node``, which writes to ``log``."""
        order = Order(
            secrets.token_hex(8),
            self._gateway,
            spec,
            terms.on,
            dict(terms.taken),
            terms.shared,
            terms.share,
            self._load_timeout,
            self._metrics,
            slots=self._slots,
            helpers=tuple(Helper(name, on) for name, on in terms.helpers.items()),
        )
        return ordered(self._nodes, self._nodes[node], order, log)
