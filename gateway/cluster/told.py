"""What gateways and nodes tell each other: plain values, which Ray carries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.backends.counts import Ended
from gateway.backends.nodes import Room
from gateway.backends.placement import Card, Memory, Placement
from gateway.backends.pulls import PullWish
from gateway.backends.tuning import Tuning
from gateway.cluster.condition import Condition
from gateway.cluster.offer import Offer
from gateway.cluster.rpc_program import NO_RPC, Rpc
from gateway.models.local_model import LocalModel
from gateway.secret import Secret

#: The ``code`` of the end of a llama-server that has lost what another node has lent to it.
PART_LOST = "part_lost"
#: The bytes of free memory by which a node must differ from what it has told.
_WORTH_TELLING = 64 * 2**20
#: The same for its disk: one part of so many.
_OF_A_DISK = 64
#: The Ray namespace of all our actors.
NAMESPACE = "llm-gateway"
#: The name of the actor that knows the nodes.
REGISTRY = "registry"
#: What the name of the actor of a node begins with.
NODE = "node/"
#: What the names of the resources of nodes begin with.
_RESOURCE = "llm:"


@dataclass(frozen=True, slots=True)
class Members:
    """The nodes of a cluster: the boot of each that is there, and of each that has been removed.

    ``drained``: those that take no more models of one group of gateways; ``None``: its gateways
    have not said yet.
    """

    version: int
    boots: dict[str, str]
    removed: dict[str, str]
    drained: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What has become of a model that another gateway is to load. ``over``: it has been tried;
    ``error``: the code and the text of why it can't be loaded, ``None``: it is.
    """

    over: bool
    error: tuple[str, str] | None = None


def resource(node: str, device: str) -> str:
    """Return the name of a Ray resource: MiB of one device of one node."""
    return f"{_RESOURCE}{node}/{device}"


def is_resource(name: str, node: str = "") -> bool:
    """Return whether a Ray resource is such a one, of ``node`` if that is given."""
    return name.startswith(resource(node, "") if node else _RESOURCE)


def reservation(gateway: str, server: str) -> str:
    """Return what is called what is reserved in Ray for a llama-server."""
    return f"{gateway}/{server}"


@dataclass(frozen=True, slots=True)
class Helper:
    """A node that lends devices to the llama-server of another one: ``on``, by its own names.

    ``host``, ``port`` and ``server_name`` are of its front, where ``key`` leads to the rpc-server.
    """

    node: str
    on: Placement
    host: str = ""
    port: int = 0
    server_name: str = ""
    key: Secret = field(default_factory=lambda: Secret(""))


@dataclass(frozen=True, slots=True)
class Order:
    """An order to start a llama-server for ``spec``.

    ``server``: its unique id; ``gateway``: whose it is. ``on``: the devices of that node where it
    has its place, beside what ``taken`` says of them; ``shared`` and ``share`` as in
    :meth:`Accounts.grant`. ``metrics``: whether it keeps some.
    ``offers``: where files can be copied from that it lacks. ``slots``: whether its slots can be
    emptied, and written to files there, as only its gateway asks for.
    ``helpers``: the nodes whose devices it uses beside its own. ``lends``: what is to be started is
    an rpc-server, for such a llama-server on another node.
    """

    server: str
    gateway: str
    spec: LocalModel
    on: Placement
    taken: dict[str, int]
    shared: bool
    share: float
    load_timeout: float = 300.0
    metrics: bool = False
    offers: tuple[Offer, ...] = ()
    slots: bool = False
    helpers: tuple[Helper, ...] = ()
    lends: bool = False


@dataclass(frozen=True, slots=True)
class PullOrder:
    """An order to fetch a model from the hub: ``id`` is unique. ``hub``: variables for it, sealed
    (:mod:`.sealed`), as a token may be among them.
    """

    id: str
    gateway: str
    wish: PullWish
    hub: bytes | None


# --- events of one llama-server ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Began:
    """It was ordered, by a gateway whose others may want to know."""

    server: str
    order: Order


@dataclass(frozen=True, slots=True)
class Used:
    """Requests have come to it since that was told last, or it is at work on some."""

    server: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """It takes no new connections: it ends when what it is at work on is over."""

    server: str


@dataclass(frozen=True, slots=True)
class Logged:
    """Lines that the llama-server has written."""

    server: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Loading:
    """How far a load is: ``part`` from 0 to 1 of the weights, or ``stage`` where files come."""

    server: str
    part: float | None
    stage: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Its process is about to begin. ``on``: what it is given of which device. Bytes."""

    server: str
    on: Placement
    weights: int
    degraded: str | None


@dataclass(frozen=True, slots=True)
class Ready:
    """It answers, behind the door of its gateway that ``key`` opens. ``on``: what it has taken of
    which device. Bytes. ``fingerprint``: see :class:`gateway.backends.run.Run`.
    """

    server: str
    key: Secret
    on: Placement
    degraded: str | None
    tuning: Tuning | None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class NotStarted:
    """It could not be started; nothing of it is left. ``ran``: its process had begun."""

    server: str
    message: str
    detail: str | None
    code: str
    ran: bool


@dataclass(frozen=True, slots=True)
class Exited:
    """It was ready, and has ended without being asked to; nothing of it is left."""

    server: str
    message: str
    detail: str | None
    code: str
    why: Ended
    by_request: bool
    counts: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """It has ended as it was asked to; nothing of it is left."""

    server: str


@dataclass(frozen=True, slots=True)
class Holds:
    """What it holds of its node's devices by now. Bytes."""

    server: str
    on: Placement


# --- events of a node ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Has:
    """What a node has, and what is free of it. ``report``: as :meth:`Capacity.report` makes it.

    ``rpc``: what it can do for a model that spans machines. ``condition``: what is wrong there.
    ``disk``: of that on which conversations are saved, if that can be told.
    """

    memory: Memory
    gpu: bool
    report: dict[str, Any]
    rpc: Rpc = NO_RPC
    condition: Condition = field(default_factory=Condition)
    disk: Room | None = None

    def alike(self, other: Has) -> bool:
        """Return whether nothing differs that is worth telling."""
        if (self.gpu, self.rpc, self.condition) != (other.gpu, other.rpc, other.condition):
            return False
        if not _alike(self.disk, other.disk):
            return False
        cards, others = _cards(self.memory), _cards(other.memory)
        return cards.keys() == others.keys() and all(
            card.size == others[name].size
            and abs(card.left - others[name].left) < _WORTH_TELLING
            and (card.hope is None) is (others[name].hope is None)
            for name, card in cards.items()
        )


def _alike(disk: Room | None, other: Room | None) -> bool:
    if disk is None or other is None:
        return disk is other
    return disk.total == other.total and abs(disk.free - other.free) < disk.total / _OF_A_DISK


def _cards(memory: Memory) -> dict[str, Card]:
    ram = () if memory.ram is None else (memory.ram,)
    return {card.name: card for card in (*memory.cards, *ram)}


@dataclass(frozen=True, slots=True)
class Stores:
    """The files in the ``llm_storage`` of a node: bytes, by path relative to it."""

    files: dict[str, int]


@dataclass(frozen=True, slots=True)
class Pulling:
    """How a ``pull`` goes: ``told`` as :meth:`Pull.report` has it. ``entry``: one that its gateway
    still has to write.
    """

    pull: str
    gateway: str
    wish: PullWish
    created: float
    told: dict[str, Any]
    entry: dict[str, Any] | None


Event = (
    Began
    | Used
    | Stopping
    | Logged
    | Loading
    | Prepared
    | Ready
    | NotStarted
    | Exited
    | Stopped
    | Holds
    | Has
    | Stores
    | Pulling
)


@dataclass(frozen=True, slots=True)
class Batch:
    """The events after those that were asked for.

    ``boot``: of which life of the node they are; ``last``: the number of the last one. ``gap``:
    some are lost, so that its whole state has to be asked for. ``asking``: how many gateways of one
    identity have asked, and waited.
    """

    boot: str
    last: int
    events: tuple[Event, ...]
    gap: bool = False
    asking: int = 1


@dataclass(frozen=True, slots=True)
class ServerState:
    """A llama-server of a node: what was ordered, and ``ready`` if it is."""

    order: Order
    ready: Ready | None
    log: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node with all that it has, after the event number ``last``.

    ``request``: one for a certificate of its key, PEM (PKCS #10, RFC 2986). ``clock``: what its
    clock says, in seconds since 1970.
    """

    name: str
    boot: str
    last: int
    host: str
    version: str
    request: bytes
    has: Has
    stores: Stores
    servers: tuple[ServerState, ...]
    pulls: tuple[Pulling, ...]
    clock: float
