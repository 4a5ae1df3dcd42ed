"""A node as a gateway knows it: what it has told, and the runs that this gateway has there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from gateway.backends.logring import LogRing
from gateway.backends.nodes import memory_on
from gateway.backends.placement import Memory
from gateway.cluster.ca import server_name
from gateway.cluster.link import ANSWER, Link, Refused, Unreachable
from gateway.cluster.offering import Asked, offers, take_back
from gateway.cluster.others import Others
from gateway.cluster.remote_pulls import RemotePulls
from gateway.cluster.reservations import Reservations
from gateway.cluster.run import ClusterRun
from gateway.cluster.spanning import run_of
from gateway.cluster.told import (
    NODE,
    Batch,
    Has,
    NodeState,
    Order,
    Pulling,
    Ready,
    ServerState,
    Stores,
)
from gateway.cluster.twins import Twins
from gateway.cluster.way import try_way_of
from gateway.errors import GatewayError
from gateway.models.local_model import LocalModel
from gateway.secret import Secret
from gateway.tasks import cancel_and_wait, spawn, spawn_lasting
from gateway.upstream import TcpAddress

_log = logging.getLogger(__name__)

#: Seconds after which a node tells at the latest that there is no news, and by how many it may be
#: late with it, since it may have much to do.
_NO_NEWS: Final = 2.0
_LATE: Final = 2.5
#: Seconds between two tries to hear from a node that gives no answer; after how many its
#: llama-servers count as lost; and after how many it is asked seldom.
_AGAIN: Final = 1.0
_LOST_AFTER: Final = 5.0
_SELDOM_AFTER: Final = 60.0
_SELDOM: Final = 5.0
#: Seconds to wait for a node that is to end something.
_END: Final = 30.0


class KnownNode:
    """The node ``name``, asked through ``link`` on behalf of ``gateway``.

    ``certify`` signs a request for a certificate and returns it with the authorities. ``found`` is
    called with a llama-server of ours there that nobody here knows, and returns whether it is
    wanted; if not, who ``places`` models ends it. ``changed``: what it has, or whether it is up,
    has changed; ``met``: all of it has been heard, by its name.
    """

    def __init__(
        self,
        name: str,
        gateway: str,
        link: Link,
        context: ssl.SSLContext,
        *,
        certify: Callable[[str, bytes], Any],
        found: Callable[[KnownNode, ServerState], bool],
        sources: Callable[[LocalModel, KnownNode], list[Asked]],
        places: Callable[[], bool],
        changed: Callable[[], None],
        met: Callable[[str], None],
        pulls: RemotePulls,
    ) -> None:
        self.name = name
        self._context = context
        self.server_name = server_name(name)
        self.host, self.port, self.version = "", 0, ""
        self.clock_off = 0.0  # seconds by which its clock is ahead of ours
        self.up = False
        #: Whether it is to take no more models.
        self.drained = False
        self.problem: str | None = "not heard of yet"
        self.files: dict[str, int] = {}
        self.has = Has(Memory(), False, {})
        self._memory = Memory()
        self._gateway = gateway
        self._link = link
        self._certify = certify
        self._found = found
        self._sources = sources
        self._places = places
        self._meets_again = False
        self._changed, self._met = changed, met
        self._pulls = pulls
        self.request = b""  # for a certificate: what is sealed for that, it alone can read
        self._runs: dict[str, ClusterRun] = {}
        self._others = Others()
        #: Seconds that requests of other gateways may take to end before a llama-server does.
        self.patience = 0.0
        self._boot = ""
        self._reservations = Reservations(
            gateway,
            name,
            link,
            lambda: self.has,
            lambda: {server: replace(run.order, on=run.on) for server, run in self._runs.items()},
        )
        self._ended: set[str] = set()  # here, while the node could not be told
        self._twins = Twins()
        self._waiting: set[asyncio.Timeout] = set()
        self._silent_since: float | None = None
        self._heard_at = 0.0
        self._wake = asyncio.Event()
        self._following = spawn_lasting(self._follow, name=f"follow the node {name}")

    @property
    def takes_models(self) -> bool:
        """Whether models can be placed on it now."""
        return self.up and not self.drained

    @property
    def memory(self) -> Memory:
        """Its devices, named as the scheduler calls them."""
        return self._memory

    @property
    def runs(self) -> tuple[ClusterRun, ...]:
        """What this gateway runs there."""
        return tuple(self._runs.values())

    def front(self, key: Secret) -> TcpAddress:
        """Return the way in by the door that ``key`` opens."""
        return TcpAddress(self.host, self.port, self._context, "localhost", self.server_name, key)

    def wake(self) -> None:
        """Ask it again at once: it has announced itself."""
        self._wake.set()

    def comes(self, model: str) -> bool:
        """Return whether it loads ``model`` for another gateway of our group."""
        return self._others.loads(model)

    def spare(self, spec: LocalModel) -> ServerState | None:
        """Return a llama-server for ``spec`` that runs for our group, and that we don't use."""
        return self._others.take(spec, self._runs)

    def meet_again(self) -> None:
        """Ask soon for all that it has, and judge it anew."""
        self._meets_again = True

    async def close(self) -> None:
        """Hear of it no more. What runs there goes on."""
        await cancel_and_wait(self._following)
        await self._reservations.close()

    async def ask(self, what: str, *arguments: Any, within: float = ANSWER) -> Any:
        """Return what the node's method ``what`` returns. See :meth:`Link.call`.

        Nobody waits for the answer of a node that is lost meanwhile.
        """
        deadline = asyncio.timeout(None)
        try:
            async with deadline:
                self._waiting.add(deadline)
                return await self._link.call(NODE + self.name, what, *arguments, within=within)
        except TimeoutError:
            raise Unreachable(self.problem or "it is lost") from None
        finally:
            self._waiting.discard(deadline)

    async def _ask_soon(self, what: str, *arguments: Any, wait: float = 0.0) -> Any:
        """Ask what it answers at once, or after ``wait`` seconds, if it isn't hung. One that isn't
        up may still be starting.
        """
        within = wait + _LATE if self.up else ANSWER
        return await self._link.call(NODE + self.name, what, *arguments, within=within)

    # --- runs ----------------------------------------------------------------------------------

    def run(
        self,
        order: Order,
        log: LogRing,
        helpers: Sequence[ClusterRun] = (),
        ready: Ready | None = None,
    ) -> ClusterRun:
        """Return a run that is still to be begun, or what is ``ready`` there."""
        if ready is not None:
            self._reservations.keep(order.server)
        run = self._runs[order.server] = run_of(self, order, log, helpers, ready)
        return run

    async def begin(self, run: ClusterRun) -> None:
        """Reserve what ``run`` needs and have it started. Raises :class:`Unreachable`."""
        order = run.order
        if not self.up:
            raise Unreachable(self.problem or "it is not up")
        try:
            await self._reservations.reserve(order)
            if not order.lends and (lacks := await self.ask("lacks", order.spec)):
                sources = self._sources(order.spec, self)
                run.offers = await offers(sources, self._gateway, order.spec, lacks)
                order = replace(order, offers=tuple(offer for _, offer in run.offers))
            self._ended.add(order.server)  # unless it says that it has begun
            await self.ask("start", order)
            self._ended.discard(order.server)
        except Refused as error:
            raise Unreachable(str(error)) from error
        except Unreachable as error:
            if self._link.joined:  # nothing more is placed here until it is heard again
                self.up, self.problem = False, error.message
                self._changed()
            raise

    async def take_back(self, run: ClusterRun) -> None:
        """End the offers of what ``run`` has copied, or not."""
        made, run.offers = run.offers, []
        await take_back(made)

    async def kill(self, run: ClusterRun) -> None:
        """Have its process killed."""
        with contextlib.suppress(GatewayError):
            await self.ask("kill", run.order.server)

    async def end(self, run: ClusterRun, *, over: bool) -> None:
        """End what is left of ``run``. Where the node can't be reached, that is done when it can be
        again.
        """
        if not over:
            try:
                async with asyncio.timeout(_END + self.patience):
                    await self.ask("stop", run.order.server, self.patience)
            except (GatewayError, TimeoutError) as error:
                what = f"the node {self.name} cannot be told to end {run.order.spec.name}"
                _log.warning("%s: %s", what, error)
                self._ended.add(run.order.server)
        await self.forget(run)

    async def forget(self, run: ClusterRun) -> None:
        """Know it no more, and give back what was reserved for it."""
        self._runs.pop(run.order.server, None)
        await self._reservations.give_back(run.order.server)

    def let_go(self, run: ClusterRun) -> None:
        """Know it no more, but leave it running."""
        self._runs.pop(run.order.server, None)

    # --- what it tells -------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            try:
                begun = [run for run in self.runs if run.begun]  # what it knows when it is asked
                last = await self._meet(await self._ask_soon("state", self._gateway), begun)
                while True:
                    self._heard_at = time.monotonic()
                    batch: Batch = await self._ask_soon(
                        "events", self._gateway, self._boot, last, _NO_NEWS, wait=_NO_NEWS
                    )
                    self._twins.hear(self.name, 1 if self.patience else batch.asking)
                    for event in batch.events:
                        self._hear(event)
                    if batch.gap or not self.up or self._meets_again:
                        break
                    last = batch.last
            except (Unreachable, Refused) as error:
                await self._not_heard(error)

    async def _meet(self, state: NodeState, begun: Sequence[ClusterRun]) -> int:
        """Take the whole state of the node. Returns the number of its last event."""
        self._meets_again = False
        self._others.clear()
        self.clock_off = state.clock - time.time()
        certificate, authorities = await self._certify(self.name, state.request)
        self.port = await self.ask("certify", self._gateway, certificate, authorities)
        self.host, self.version, self.request = state.host, state.version, state.request
        if not self.up:
            await try_way_of(self.name, self.front(Secret("")), self.problem)
        if state.boot != self._boot:
            if self._boot:
                _log.warning("the node %s has started anew", self.name)
                self._ended.clear()
                begun = [run for run in self.runs if run.begun]
            self._boot = state.boot
        self._take(state.has)
        self.files = state.stores.files
        there = {one.order.server: one for one in state.servers}
        for server, run in list(self._runs.items()):
            if server not in there and run in begun:
                run.lose(f"the node {self.name!r} has started anew without it")
            elif (ready := there.get(server)) is not None and ready.ready is not None:
                run.hear(ready.ready)
        if not self.up:
            _log.info("the node %s is up", self.name)
        self.up, self.problem, self._silent_since = True, None, None
        for server, one in there.items():
            if one.order.gateway != self._gateway or server in self._runs:
                continue
            if one.order.lends and server not in self._ended:
                if not self.patience:  # no other gateway may be about to use it
                    await self.ask("stop_unused", server)
            elif one.ready is None and self.patience and server not in self._ended:
                self._others.note(one)  # another gateway of our group may wait for it
            elif not self._wanted(one):
                await self._end_unwanted(one)
        await self._reservations.sweep(there, alone=not self.patience)
        self._pulls.met(self, state.pulls)
        self._met(self.name)
        self._changed()
        return state.last

    def _wanted(self, one: ServerState) -> bool:
        """Take over a llama-server of ours that nobody here knows, if it is wanted."""
        if one.order.server in self._ended:
            return False
        if self._found(self, one):
            return True
        if keep := not self._places():
            self._others.note(one)
        return keep

    async def _end_unwanted(self, one: ServerState) -> None:
        server = one.order.server
        _log.info("ending %s on %s: nobody wants it", one.order.spec.name, self.name)
        await self.ask("stop", server)
        self._ended.discard(server)
        await self._reservations.give_back(server)

    async def _end_new(self, one: ServerState) -> None:
        with contextlib.suppress(GatewayError):  # then it is ended when the node is met again
            await self._end_unwanted(one)

    def _hear(self, event: object) -> None:
        if isinstance(event, Has):
            self._take(event)
            self._changed()
        elif isinstance(event, Stores):
            before, self.files = self.files, event.files
            if before.keys() != event.files.keys():  # not while a file is being written
                self._changed()
        elif isinstance(event, Pulling):
            self._pulls.hear(self, event)
        elif (run := self._runs.get(getattr(event, "server", ""))) is not None:
            run.hear(event)  # type: ignore[arg-type]  # all others are about a server
            if isinstance(event, Ready):
                self._reservations.adjust(run.order, event.on)
        elif (one := self._others.hear(event, self._gateway)) is not None and not self._wanted(one):
            spawn(self._end_new(one), name=f"end {one.order.spec.name}")

    def _take(self, has: Has) -> None:
        self.has, self._memory = has, memory_on(self.name, has.memory)

    async def _not_heard(self, error: GatewayError) -> None:
        """Note that it gives no answer, and wait until it is time to ask again."""
        now = time.monotonic()
        if not self._link.joined:  # which says nothing about the node: its llama-servers go on
            self.problem = f"Ray is not joined: {self._link.problem}"
            await asyncio.sleep(_AGAIN)
            return
        late = isinstance(error, Unreachable) and error.late
        if self._silent_since is None:
            self._silent_since = self._heard_at if late else now
            if late and self.up:
                return  # our own process may have been paused: it is asked once more
        silent = now - self._silent_since
        gone = isinstance(error, Unreachable) and error.final
        if gone or isinstance(error, Refused) or silent >= _LOST_AFTER:
            self.problem = error.message
            if self.up:
                self.up = False
                self._others.clear()
                _log.warning("the node %s is lost: %s", self.name, error.message)
                for run in self.runs:
                    run.lose(f"its node {self.name!r} is lost")
                for deadline in self._waiting:
                    deadline.reschedule(0.0)
                self._pulls.lose(self.name, "is lost")
                self._changed()
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SELDOM if silent >= _SELDOM_AFTER else _AGAIN):
                await self._wake.wait()
