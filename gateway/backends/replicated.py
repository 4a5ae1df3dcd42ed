"""The backend of a local model of which several copies may run, on different machines.

The first copy is the backend itself: the model is what that is. The others are members, each with
a state machine of its own, made and given up without anybody noticing; one that fails is not
started again but replaced, as soon as there is room. Where the first one dies while another is
ready, that one takes its place: the model stays ready, and requests that had no answer yet go
there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from gateway.backends.backend import OUT_OF_MEMORY, Backend, Environment, State
from gateway.backends.copies_log import CopiesLog
from gateway.backends.decision import CopyView
from gateway.backends.logring import LogRing
from gateway.backends.nodes import NodeRun
from gateway.backends.placed import PlacedBackend
from gateway.backends.placement import Placement
from gateway.backends.replica import Replica
from gateway.backends.run import End, Run
from gateway.backends.several import Several
from gateway.models.local_model import LocalModel
from gateway.tasks import spawn
from gateway.upstream import Upstream, UpstreamError

_log = logging.getLogger(__name__)

#: Seconds until a copy that could not be started, or has died, is replaced: first, and at most.
_AGAIN: Final = 1.0
_LONGEST: Final = 120.0
#: The states in which requests are sent to it, those that it has at least.
_TAKING: Final = (State.READY, State.DRAINING)
#: Seconds within which a copy elsewhere must have begun to start for a model that is to move.
_BEGIN: Final = 5.0
#: Seconds within which all nodes should have told what runs on them.
_FOUND: Final = 5.0


class ReplicatedBackend(PlacedBackend):
    """The llama-servers of one model."""

    several: Several

    def __init__(
        self,
        spec: LocalModel,
        environment: Environment,
        socket_name: str,
        changed: Callable[[Backend], None],
    ) -> None:
        super().__init__(spec, environment, socket_name, changed)
        self._members: list[PlacedBackend] = []
        self.several = Several(spec.parallel, several_gateways=environment.several_gateways)
        self._written = CopiesLog(lambda: (self, *self._members, *self._departing))
        self._written.show(self.log)
        self._made = 0
        self._pause = _AGAIN
        self._ending: set[asyncio.Future[None]] = set()  # stops of copies
        self._leaving: str | None = None  # the machine that it is to move off
        self._moves = 0
        self._departing: list[PlacedBackend] = []  # given up, but still there
        self._idled = False  # copies were given up because fewer were enough
        self._copied = False  # it has had several since it was loaded
        self._ran_out: list[Placement] = []  # where copies had too little memory
        #: Monotonic time before which no further copy is to be made.
        self.no_copy_until = 0.0

    # --- what there is -------------------------------------------------------------------------

    @property
    def pool(self) -> Upstream:  # type: ignore[override]  # of several
        """The connections to all copies that are ready."""
        return self.several if len(self.several) > 1 else super().pool

    @property
    def shown_log(self) -> LogRing:
        """What all copies write."""
        return self._written.ring

    @property
    def resident(self) -> bool:
        """Whether anything of any copy is left."""
        return super().resident or bool(self._ending or self._departing)

    @property
    def copies(self) -> int:
        """How many copies take requests, the first one among them."""
        return max(1, len(self.several))

    @property
    def parting(self) -> int:
        """See :attr:`Backend.parting`."""
        there = (one.replica for one in self._departing)
        return sum(replica.in_flight for replica in there if replica is not None)

    @property
    def missing(self) -> int:
        """How many more copies there should be."""
        if self.state is not State.READY or time.monotonic() < self.no_copy_until:
            return 0
        wanted = self.spec.replicas + (self._leaving is not None)
        return max(0, wanted - 1 - len(self._members))

    @property
    def nodes(self) -> tuple[str | None, ...]:
        """The node of each copy that runs; None: this machine."""
        return tuple(one.node for one in self._those() if one.resident)

    @property
    def held(self) -> Placement | None:
        """What all copies have of their devices, as the scheduler calls them."""
        own = super().held
        if not self._copied:
            return own
        return sum((one.view.on for one in self._those()), ())

    def processes(self, on: Placement) -> Iterator[tuple[int, Placement]]:
        """Yield the ids of all copies' processes on this machine, and where each is."""
        if not self._members and not self._departing:
            yield from super().processes(on)
            return
        for one in self._those():
            if (pid := one.pid) is not None:
                yield pid, one.granted

    def _those(self) -> list[PlacedBackend]:
        """Return every copy of which something is there, or is to be."""
        first = [self] if super().resident else []
        return [*first, *self._members, *self._departing]

    def copies_seen(self) -> tuple[CopyView, ...]:
        """Return its copies, those that are leaving among them, if there are several."""
        if not self._members and not self._departing:
            return ()
        leaving = [replace(one.view, leaving=True) for one in self._departing]
        return (self.view, *(one.view for one in self._members), *leaving)

    # --- further copies ------------------------------------------------------------------------

    def new_member(self) -> PlacedBackend:
        """Return one more copy, which is to be placed and started."""
        self._made += 1
        stem, _, suffix = self._socket_name.rpartition(".")
        name = f"{stem}c{self._made % 1000}.{suffix}"
        member = PlacedBackend(self.spec, self._env, name, self._member_changed)
        member.number = self._made
        self._members.append(member)
        self._written.show(member.log)
        self._copied = True
        return member

    def adopt(self, run: NodeRun) -> None:
        """See :meth:`PlacedBackend.adopt`. Further copies may be found, too, before any is made."""
        self.no_copy_until = time.monotonic() + _FOUND
        asyncio.get_running_loop().call_later(_FOUND, self._changed, self)
        super().adopt(run)

    def adopt_copy(self) -> PlacedBackend | None:
        """Return a copy for what was found on a node, if there should be one more.

        Who doesn't place models takes all that there are: one may be to take another's place.
        """
        if self.state not in (State.STARTING, State.READY):
            return None
        if 1 + len(self._members) < self.spec.replicas or not self._places:
            return self.new_member()
        return None

    @property
    def _places(self) -> bool:
        return self._env.nodes is None or self._env.nodes.places

    def trim(self) -> None:
        """Give up those that are more than there should be."""
        most = self.spec.replicas - 1 + (self._leaving is not None)
        if self.state is not State.READY or not self._places or len(self._members) <= most:
            return
        for member in self._members[most:]:
            self._members.remove(member)
            self._begin_to_give_up(member)
        self._count()
        self._changed(self)

    def _stopping_there(self) -> None:
        """Go on with another copy where another gateway ends the first one."""
        ready = [one for one in self._members if one.state is State.READY]
        if not ready or self.state is not State.READY:
            super()._stopping_there()
            return
        self._move_to(ready[0])
        self._count()
        self._changed(self)

    def wants_copies(self, *, busy: bool) -> bool:
        """Return whether there should be more of them, and at once.

        ``busy``: requests wait for a slot. Where copies were idle for too long, that brings them
        back.
        """
        if busy:
            self._idled = False
        return self.missing > 0 and (not self._idled or self._leaving is not None)

    def give_up_copy(self, number: int, *, idle: bool) -> None:
        """See :meth:`Backend.give_up_copy`. Where it is the first one, another takes its place."""
        self._idled = self._idled or idle
        going = next((one for one in self._members if one.number == number), None)
        if going is None and number == self.number:
            going = next((one for one in self._members if one.state is State.READY), None)
            if going is not None:
                self._members.remove(going)
                self.exchange(going)
        elif going is not None:
            self._members.remove(going)
        if going is None:
            return  # it has gone, or is the only one that is ready
        _log.info("a copy of %s ends: %s", self.spec.name, "it is idle" if idle else "for others")
        self._begin_to_give_up(going)
        self._count()
        self._changed(self)

    def _member_changed(self, backend: Backend) -> None:
        assert isinstance(backend, PlacedBackend)
        if backend not in self._members:
            return  # it is given up
        if backend.going and backend.state is State.READY:
            self._members.remove(backend)
            self._begin_to_give_up(backend)
        elif backend.state is State.READY:
            self._pause = _AGAIN
            if self.state in (State.BACKOFF, State.FAILED):  # it need not be started again
                self._members.remove(backend)
                self.exchange(backend)
                self._enter(State.READY)
                return
            if self._leaving is not None and backend.where != self._leaving:
                self._move_to(backend)
        elif not backend.resident:
            if backend.last_error is not None:
                self.last_error = backend.last_error
                _log.warning("a copy of %s has ended: %s", self.spec.name, backend.last_error)
            if backend.start_error is not None and backend.start_error.code == OUT_OF_MEMORY:
                self._ran_out.append(backend.granted)
            self.no_copy_until = time.monotonic() + self._pause
            asyncio.get_running_loop().call_later(self._pause, self._changed, self)
            self._pause = min(2 * self._pause, _LONGEST)
            self._members.remove(backend)
        self._count()
        self._changed(self)

    def take_ran_out(self) -> list[Placement]:
        """Return where copies have run out of memory since this was asked last."""
        found, self._ran_out = self._ran_out, []
        return found

    def _count(self) -> None:
        """Let requests go to those that are ready now."""
        taking: list[Replica] = []
        if self.state in _TAKING and self.replica is not None:
            ready = (one.replica for one in self._members if one.state is State.READY)
            taking = [self.replica, *(replica for replica in ready if replica is not None)]
        self.several.take(taking)

    def _enter(self, state: State) -> None:
        if state not in _TAKING:
            self.several.take(())
        super()._enter(state)
        if state in _TAKING and self.state is state:
            self._count()

    # --- when one goes -------------------------------------------------------------------------

    async def _goes_on(self, run: Run, end: End) -> bool:
        """Let another copy take the place of the first one, which has died."""
        await super()._goes_on(run, end)
        member = next((one for one in self._members if one.state is State.READY), None)
        if member is None:
            return False
        self.last_death, self.by_request = end.error, end.by_request
        self.last_error = end.error
        self.deaths += 1
        self._env.counts.ends[self.spec.name, end.why] += 1
        _log.error("model %s: %s Another copy goes on.", self.spec.name, end.error.message)
        spawn(_clear_away(run), name=f"clear away a copy of {self.spec.name}")
        self._run = None
        self._members.remove(member)
        self.exchange(member)
        self._count()
        self._changed(self)
        return True

    def _move_to(self, member: PlacedBackend) -> None:
        """Be the copy that ``member`` was, and let it be the one that we were, until its requests
        have ended.
        """
        self._leaving = None
        self._moves += 1
        self._members.remove(member)
        self.exchange(member)
        self._begin_to_give_up(member)

    def _begin_to_give_up(self, member: PlacedBackend) -> None:
        self._departing.append(member)
        if member.replica is not None:
            member.replica.parting = True
        spawn(self._give_up(member), name=f"give up a copy of {self.spec.name}")

    async def _give_up(self, member: PlacedBackend) -> None:
        """End a copy that gets no new requests, when those that it has are answered."""
        try:
            if member.replica is not None:
                await member.replica.idle()
            with contextlib.suppress(UpstreamError):  # it is gone
                await member.pool.drained()
            await member.stop()
        finally:
            if member in self._departing:
                self._departing.remove(member)
        self._changed(self)

    async def move_off(self, node: str) -> bool:
        """Have no copy on ``node``, or here, any more. Returns False where there is no place
        elsewhere, and the first one is still there.
        """
        if self.spans:
            return node not in self.spans  # there is no copy of what spans machines
        for member in [one for one in self._members if one.where == node]:
            self._members.remove(member)
            self._count()
            self._begin_to_give_up(member)
        self._changed(self)
        if self.where != node or self.state is not State.READY:
            return self.where != node
        if ready := [one for one in self._members if one.state is State.READY]:
            self._move_to(ready[0])
            self._count()
            self._changed(self)
            return True
        self._leaving = node
        self._changed(self)
        now, moves = time.monotonic(), self._moves
        began = now + max(0.0, min(self.no_copy_until - now, _FOUND))
        while (
            self._moves == moves
            and self.where == node
            and self.state is State.READY
            and self._leaving is not None
        ):
            if not self._members and time.monotonic() - began > _BEGIN:
                self._leaving = None
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BEGIN / 10):
                    await self._next_state.wait()
        return self._moves != moves or self.where != node

    def stop(self) -> asyncio.Future[None]:
        """End all copies, whatever they are doing; await that they are gone."""
        return self._all(super().stop(), [member.stop() for member in self._away_with()])

    def leave(self) -> asyncio.Future[None]:
        """End those that are here; those on nodes go on, to be found by the next gateway."""
        return self._all(super().leave(), [member.leave() for member in self._away_with()])

    def _away_with(self) -> list[PlacedBackend]:
        members, self._members, self._leaving = self._members, [], None
        departing, self._departing = self._departing, []
        self._idled = self._copied = False
        return members + departing

    def _all(
        self, own: asyncio.Future[None], others: list[asyncio.Future[None]]
    ) -> asyncio.Future[None]:
        if not others:
            return own

        async def all_of_them() -> None:
            await asyncio.gather(own, *others)

        def over(task: asyncio.Future[None]) -> None:
            self._ending.discard(task)
            self._changed(self)

        ending = spawn(all_of_them(), name=f"stop the copies of {self.spec.name}")
        self._ending.add(ending)
        ending.add_done_callback(over)
        return asyncio.shield(ending)


async def _clear_away(run: Run) -> None:
    await run.disconnect()
    await run.end()
