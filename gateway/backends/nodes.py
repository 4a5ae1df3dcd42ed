"""Other machines that models can be placed on, as the scheduler and the backends see them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gateway.backends.placement import Card, Demand, Memory, Placement
from gateway.backends.pulls import PullThere, PullWish
from gateway.backends.run import Run
from gateway.errors import NotFound
from gateway.models.local_model import LocalModel
from gateway.names import HERE

if TYPE_CHECKING:
    from gateway.backends.logring import LogRing


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a start on a node. Bytes, by device as that node calls it.

    ``taken``: what other models have of it. ``shared`` and ``share``: as in
    :meth:`Accounts.grant`. ``helpers``: what it has of other nodes, by node.
    """

    on: Placement
    taken: Mapping[str, int]
    shared: bool
    share: float
    helpers: Mapping[str, Placement] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node as reports for administrators show it.

    ``drained``: it takes no more models. ``problem``: why it isn't up. ``devices``: as
    :meth:`Capacity.report` has them. ``no_rpc``: why it can't lead models that span machines, or
    lend devices to them. ``servers``: the models that this gateway runs there. ``llama_server``:
    its version. ``troubles``: what is wrong there, though it is used. ``clock_off``: seconds by
    which its clock is ahead of ours.
    """

    name: str
    up: bool
    drained: bool
    problem: str | None
    host: str
    version: str
    gpu: bool
    no_rpc: str | None
    devices: tuple[Mapping[str, Any], ...]
    servers: tuple[str, ...]
    llama_server: str | None = None
    troubles: tuple[str, ...] = ()
    clock_off: float = 0.0


@dataclass(frozen=True, slots=True)
class Room:
    """The bytes of the disk that a node saves conversations on, in all and free."""

    total: int
    free: int


class SavedSlots(Protocol):
    """The files that this gateway's llama-servers on a node have written of their slots.

    Raises :class:`gateway.errors.GatewayError` where the node can't be asked.
    """

    @property
    def node(self) -> str:
        """Its node."""

    @property
    def problem(self) -> str | None:
        """Why it can't be asked now, if that is so."""

    @property
    def room(self) -> Room | None:
        """What it has told of its disk last; another one, if it has told more."""

    async def meet(self, known: Mapping[str, int]) -> Collection[str]:
        """Have it remove all but ``known``, bytes by name; return which of these aren't there."""

    async def keep(self, name: str, written: int) -> int | None:
        """Have it keep what was written; return the checksum, None if that isn't all there."""

    async def is_whole(self, name: str, size: int, check: int) -> bool:
        """Return whether a file is as it was written."""

    async def remove(self, names: Sequence[str]) -> None:
        """Remove those files, as far as they are there."""


class SavedOnNodes(Protocol):
    """Those on all nodes."""

    #: Called with the name of a node that has been met, for the first time or again; and of one
    #: that was removed.
    met: Callable[[str], None]
    removed: Callable[[str], None]

    def on(self, node: str) -> SavedSlots:
        """Return those on a node, which need not be there."""


class NodeRun(Run, Protocol):
    """A run on a node."""

    @property
    def node(self) -> str:
        """Its node."""

    @property
    def name(self) -> str:
        """What all gateways call it."""

    #: Called when more of it has turned out: what it holds, how far its load is.
    changed: Callable[[], None]
    #: Called when requests of any gateway have come to it, and when another gateway ends it.
    used: Callable[[], None]
    stopping: Callable[[], None]

    @property
    def stage(self) -> str | None:
        """What its start is at, where that is not the load itself: files are copied."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes that it is on: the one that leads, and those that lend devices to it."""

    @property
    def held(self) -> Placement:
        """What it has been given, or has taken, of their devices by now, as the scheduler calls
        them.
        """

    async def let_go(self) -> None:
        """Close the connections, and leave it running for whoever finds it."""


class NodePull(PullThere, Protocol):
    """A pull on a node."""

    async def named(self, name: str) -> None:
        """Tell the node that it has its entry, under ``name``."""


class NodePulls(Protocol):
    """The pulls of this gateway on nodes."""

    #: Called with one that an earlier life of this gateway, or another of its group, has begun.
    found: Callable[[NodePull], object]

    async def begin(self, name: str, wish: PullWish, hub: Mapping[str, str]) -> NodePull:
        """Have a node fetch a model; ``hub``: :func:`.hub_variables.hub_variables` of here.

        Raises :class:`gateway.errors.GatewayError` where it can't.
        """

    def others_have(self, name: str, file: str) -> bool:
        """Return whether a node other than ``name`` has a file, by its path below llm_storage."""


class UnknownNode(NotFound):
    """404: no node of that name has been heard of."""

    default_code = "node_not_found"


def known_node(nodes: Nodes | None, name: str) -> NodeStatus | None:
    """Return the node called ``name``; None: it means this machine. Raises :class:`UnknownNode`."""
    if name == HERE:
        return None
    known = {} if nodes is None else {one.name: one for one in nodes.report()}
    if name not in known:
        there = ", ".join(known) or "none"
        why = f"nodes that have joined: {there}"
        if nodes is None:
            why = "this gateway has no cluster in gateway.yaml"
        raise UnknownNode(f"there is no node {name[:63]!r}; {why}", param="node")
    return known[name]


class Nodes(Protocol):
    """The nodes of a cluster."""

    def memory(self) -> Mapping[str, Memory]:
        """Return the memory of each node that takes models."""

    def demand(self, spec: LocalModel, demand: Demand) -> Demand:
        """Return ``demand``, of this machine, with what is known of ``spec``'s on each node."""

    def knows(self, spec: LocalModel) -> bool:
        """Return whether the nodes have said what ``spec`` needs there."""

    def takes(self, spec: LocalModel) -> bool:
        """Return whether there is a node where ``spec`` may run."""

    def problem(self, spec: LocalModel) -> str | None:
        """Return why no node takes ``spec``, if none does; None: some node does."""

    def alone(self, spec: LocalModel) -> str | None:
        """Return why ``spec``, which may span machines, doesn't; None: it may not, or does."""

    async def look_up(self, spec: LocalModel) -> None:
        """Ask the nodes what ``spec`` needs there."""

    def report(self) -> list[NodeStatus]:
        """Return every node that has been heard of."""

    @property
    def head_problem(self) -> str | None:
        """Why the head of the cluster gives no answer; None: it does."""

    @property
    def drained(self) -> Collection[str]:
        """The names of the nodes that take no more models, and that models leave."""

    async def drain(self, name: str) -> None:
        """Let a node take no more models, also after a restart. Raises :class:`UnknownNode`."""

    async def resume(self, name: str) -> None:
        """Let it take models again."""

    async def remove(self, name: str) -> None:
        """Drain it, and forget it when nothing of ours runs there; it may join again."""

    @property
    def pulls(self) -> NodePulls:
        """What this gateway has fetched from the hub by nodes."""

    @property
    def saved(self) -> SavedOnNodes:
        """The files that this gateway's llama-servers have written of their slots."""

    @property
    def shared(self) -> bool:
        """Whether other gateways may use, place and end the same llama-servers."""

    @property
    def places(self) -> bool:
        """Whether this gateway decides what runs where on nodes."""

    def sought(self, spec: LocalModel, log: LogRing) -> NodeRun:
        """Return a run of ``spec`` that the gateway which places models is asked for."""

    def run(self, spec: LocalModel, node: str, log: LogRing, terms: Terms) -> NodeRun:
        """Return a run of ``spec`` on ``node``, which writes to ``log``."""


def node_of(on: Placement) -> str | None:
    """Return the node of a placement, of several the one that leads; None for this machine."""
    for name, _ in on:
        node, slash, _ = name.rpartition("/")
        if slash:
            return node
    return None


def on_node(node: str, on: Placement) -> Placement:
    """Return a placement, as the node calls its devices, as the scheduler calls them."""
    return tuple((f"{node}/{name}", size) for name, size in on)


def memory_on(node: str, memory: Memory) -> Memory:
    """Return the memory of a node, as it calls its devices, as the scheduler calls them."""

    def called(card: Card) -> Card:
        return Card(f"{node}/{card.name}", card.size, card.left, card.hope)

    ram = None if memory.ram is None else called(memory.ram)
    return Memory(tuple(map(called, memory.cards)), ram)


def of_node(node: str, on: Placement) -> Placement:
    """Return the part of a placement that is on ``node``, as the node calls its devices."""
    prefix = f"{node}/"
    return tuple((name[len(prefix) :], size) for name, size in on if name.startswith(prefix))
