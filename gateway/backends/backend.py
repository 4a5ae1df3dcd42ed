"""A model's backend as the scheduler sees it: one state machine, local or remote.

:mod:`gateway.backends.local` is a llama-server of our own, :mod:`gateway.backends.remote` a model
that other servers have. The scheduler decides what to start, drain and stop, and when; the backend
does it, and its :attr:`Backend.state` is the only place that says how far that is. To ask for any
of them changes the state at once, so that nothing can be decided on an older one.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from gateway.backends import process
from gateway.backends.counts import ModelCounts
from gateway.backends.decision import CopyView
from gateway.backends.flights import Flights
from gateway.backends.log_requests import Tasks, no_tasks
from gateway.backends.logring import LogRing
from gateway.backends.placement import Placement
from gateway.backends.served import Served
from gateway.backends.slot_looks import SlotLooks
from gateway.backends.watchdog import PATIENCE, Patience
from gateway.errors import GatewayError
from gateway.models.model import Model
from gateway.upstream import Upstream, UpstreamError

if TYPE_CHECKING:
    from gateway.backends.nodes import Nodes
    from gateway.backends.several import Several
    from gateway.backends.tuning import Tuning

_log = logging.getLogger(__name__)

#: The ``code`` of a :class:`LoadFailed` because memory ran out.
OUT_OF_MEMORY = "out_of_memory"


class State(enum.StrEnum):
    """The states of a backend; see the modules of the two kinds."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


class SlotSaves(Protocol):
    """A service that saves the slots of llama-servers, where that is wanted."""

    @property
    def folder(self) -> Path | None:
        """The folder for saved slots; None if it can't be written to."""

    def arrived(self, backend: Served, /) -> None:
        """Note that a process of ``backend`` is ready."""

    async def leave(self, backend: Served, pool: Upstream, /) -> None:
        """Save what is worth it before the process of ``backend`` is ended; ``pool``: connections
        to it.
        """


@dataclass(frozen=True, slots=True)
class Environment:
    """The settings and services that all backends of a gateway share. Times in seconds."""

    llama_server: str
    llm_storage: Path
    runtime_dir: Path
    #: The gateway's own environment. Children see :attr:`for_children`.
    environ: Mapping[str, str]
    records: process.Records
    load_timeout: float
    #: For how long a starting child may answer /health with a status other than 200 and 503.
    health_refusal: float = 3.0
    stop_grace: float = 10.0
    #: The first wait after a death, doubled for each further one in a row, up to the cap.
    backoff_first: float = 0.5
    backoff_cap: float = 60.0
    #: A death before, or so soon after, being ready is a quick one; so many in a row mean "failed".
    quick_death: float = 60.0
    quick_deaths_allowed: int = 4
    #: The first wait of a failed backend before it is tried again, doubled for each failure, and
    #: the longest wait.
    failed_first: float = 30.0
    failed_cap: float = 600.0
    patience: Patience = PATIENCE
    #: The time between two measurements of a loaded model's memory.
    growth_interval: float = 30.0
    #: The time between two health checks of a remote server that is up.
    health_interval: float = 30.0
    #: Saves the slots of llama-servers; None: saving is off.
    slot_saves: SlotSaves | None = None
    #: Other machines that models can be placed on; None: there is no cluster.
    nodes: Nodes | None = None
    #: Whether other gateways share what this one uses.
    several_gateways: bool = False
    #: Whether llama-servers of our own keep metrics.
    metrics: bool = False
    #: Which task at its llama-server each of the last requests was.
    tasks: Tasks = field(default_factory=no_tasks)
    #: What has become of models.
    counts: ModelCounts = field(default_factory=ModelCounts)
    #: Variables with keys, which no child gets. The set only grows, even when models.json names
    #: other variables later.
    withheld: set[str] = field(default_factory=set)

    @property
    def for_children(self) -> Mapping[str, str]:
        """The environment for child processes."""
        return {k: v for k, v in self.environ.items() if k not in self.withheld}


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One remote server as reports for administrators show it. Times in seconds."""

    url: str
    up: bool = False
    in_flight: int = 0
    error: str | None = None
    retry_in: float | None = None


class Backend(ABC):
    """A backend that answers for one :class:`Model`.

    ``changed`` is called (from the event loop) after every change of state. It may start, drain or
    stop the backend in turn: whoever enters a state does nothing after that.
    """

    #: The states in which it may be given requests.
    SERVING: ClassVar = frozenset({State.READY})
    #: Its llama-servers, where there may be several: each request goes to one of them.
    several: Several | None = None
    #: See :class:`Served`.
    inherited = False

    def __init__(self, spec: Model, changed: Callable[[Backend], None]) -> None:
        self.spec = spec
        self.log = LogRing()
        #: The requests it is working on. If it was ended because of one of them, each knows its
        #: part in that.
        self.flights = Flights(remember=spec.ours)
        self.slot_looks = SlotLooks(self)
        self.state = State.STOPPED
        self.serving = False  # may be given requests
        self.since = time.monotonic()  # of the present state
        self.ready_since: float | None = None  # when the last start was done
        self.start_began = -math.inf  # when the last start did
        self.start_ended = -math.inf  # when one was over last, well or badly
        self.load_seconds: float | None = None  # how long the last start took
        self.starts = 0
        self.deaths = 0  # ends nobody asked for, in all
        self.last_error: GatewayError | None = None
        self._starting: asyncio.Task[GatewayError | None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self.last_death: GatewayError | None = None  # of a process that was ready
        #: Whether a request may have caused the last death, and the requests whose connections
        #: broke then.
        self.by_request = False
        self.accused: list[Any] = []
        self.sleeping = False  # ready, but its memory is given back until the next request
        self.start_failed = False  # the last start came to nothing that would have to be stopped
        #: Why the last start failed; ``None`` during a start, after a successful one, and after a
        #: stop.
        self.start_error: GatewayError | None = None
        #: The devices for the next start (none: llama-server chooses), and why it will get no GPU
        #: though it should.
        self.devices: tuple[str, ...] = ()
        self.without_gpu: str | None = None
        #: What was chosen where its entry leaves something open; once it is ready, with the actual
        #: values.
        self.tuning: Tuning | None = None
        #: Whether another gateway is ending its process, and when any was seen to use it
        #: (monotonic).
        self.going = False
        self.used_elsewhere = 0.0
        self.retry_at = 0.0  # monotonic time before which BACKOFF or FAILED lasts
        self._changed = changed
        self._next_state = asyncio.Event()  # set, and replaced, when the state changes

    # --- what callers ask for --------------------------------------------------------------

    @property
    @abstractmethod
    def pool(self) -> Upstream:
        """The upstream that requests are sent to.

        Raises :class:`ConnectFailed` if there is nothing: it may have gone between a lease and
        its use, and then the request can be sent again as after a connection that failed.
        """

    @property
    @abstractmethod
    def resident(self) -> bool:
        """Whether it has a process or connections that :meth:`stop` would end."""

    @property
    def pid(self) -> int | None:
        """The id of its process, while there is one."""
        return None

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint that saved slots must have to fit it; None if it doesn't run, or can't
        save slots.
        """
        return None

    @property
    def node(self) -> str | None:
        """The node that it runs on, while it runs on one; None: this machine."""
        return None

    def processes(self, on: Placement) -> Iterator[tuple[int, Placement]]:
        """Yield the ids of its processes on this machine, and where each is; ``on``: all of it."""
        if (pid := self.pid) is not None:
            yield pid, on

    @property
    def shown_log(self) -> LogRing:
        """The log that people read."""
        return self.log

    @property
    def copies(self) -> int:
        """How many processes or servers of ours take its requests."""
        return 1

    @property
    def parting(self) -> int:
        """How many requests are at processes of ours that take no further ones."""
        return 0

    def copies_seen(self) -> tuple[CopyView, ...]:
        """Return its copies, those that are leaving among them, if there are several."""
        return ()

    def give_up_copy(self, number: int, *, idle: bool) -> None:
        """End a copy when it has answered what it was asked; ``idle``: it isn't needed."""
        raise NotImplementedError

    @property
    def progress(self) -> float | None:
        """The loaded share of the model, from 0 to 1, while it starts and if that is known."""
        return None

    @property
    def stage(self) -> str | None:
        """What its start is at, where that is not the load itself: files are copied."""
        return None

    @property
    def degraded(self) -> str | None:
        """Why it runs on the CPU though it shouldn't."""
        return None

    @property
    def servers(self) -> tuple[ServerStatus, ...]:
        """The remote servers behind it, if it has no process here."""
        return ()

    @property
    def context_size(self) -> int | None:
        """The context size in tokens, as a remote server lists it, if it does."""
        return None

    @abstractmethod
    def start(self, prepare: Callable[[], Awaitable[None]] | None = None) -> None:
        """Begin to start it: it is ``starting`` from now on. Nothing of it may be there.

        ``prepare`` is awaited first, and ends with the start where that is stopped.
        """

    @abstractmethod
    async def ensure_ready(self) -> None:
        """Return when the backend is ready, starting it first where that is needed.

        Any number of callers may wait; cancelling one does not stop the start. Raises
        :class:`GatewayError` if the start fails, or at once while the backend is ``failed``.
        """

    @abstractmethod
    def stop(self) -> asyncio.Future[None]:
        """End it, whatever it is doing: it is ``stopping`` from now on if anything of it is there.

        Await what this returns until nothing is left; the end comes without that, too.
        """

    def leave(self) -> asyncio.Future[None]:
        """End it with the gateway; what can go on until the next one comes may."""
        return self.stop()

    @abstractmethod
    def reset(self) -> None:
        """Forget earlier failures: somebody explicitly asked for this model again."""

    @abstractmethod
    async def suspect(self, *, refused: bool = False) -> None:
        """Find out quickly, after a connection broke, or was ``refused``, what has happened."""

    async def reason(self, error: UpstreamError, deaths: int) -> GatewayError:
        """Return why a request came to the end that ``error`` tells of, for its client.

        ``deaths`` is what :attr:`deaths` was when the request was sent: if there has been one
        since, or there is within a second, that is the reason.
        """
        return error

    @abstractmethod
    def failure(self) -> GatewayError:
        """Return why a ``failed`` backend is not started again."""

    def refused(self, failure: GatewayError) -> None:
        """Note why it could not even be started."""
        self.last_error = failure
        self.start_failed = True
        _log.error("model %s: %s", self.spec.name, failure.message)

    def drain(self) -> None:
        """Take no new work; what runs may finish. Only what takes work can be drained."""
        if self.serving:
            self._enter(State.DRAINING)

    def undrain(self) -> None:
        """Take work again."""
        if self.state is State.DRAINING:
            self._enter(State.READY)

    def starting_within(self, since: float) -> float:
        """Return for how many seconds between ``since`` (monotonic time) and now it was starting.
        Only the last start counts.
        """
        ended = self.start_ended if self.state is not State.STARTING else time.monotonic()
        return max(0.0, ended - max(since, self.start_began))

    # --- for the kinds of backends ---------------------------------------------------------

    def _give_way(self) -> None:
        """End this start if it is stopped: that has been said, and its task comes a turn later."""
        if self._stopping is not None:
            raise asyncio.CancelledError

    def _enter(self, state: State) -> None:
        if state is self.state:
            return
        _log.info("model %s: %s -> %s", self.spec.name, self.state, state)
        now = time.monotonic()
        if state is State.READY and self.state is State.STARTING:
            self.ready_since = now
        if state is State.STARTING:
            self.start_began = now
        elif self.state is State.STARTING:
            self.start_ended = now
        self.state = state
        self.serving = state in self.SERVING
        self.since = now
        turned, self._next_state = self._next_state, asyncio.Event()
        turned.set()
        self._changed(self)
