"""One run of a llama-server that uses devices of other nodes, as its backend here sees it.

Its helpers, each the run of an rpc-server, come first and go last. Where one of them is lost, so is
all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gateway.backends.logring import LogRing
from gateway.backends.placement import Placement
from gateway.backends.run import NODE_LOST, End
from gateway.backends.tuning import Tuning
from gateway.backends.watchdog import Hang
from gateway.cluster.run import ClusterRun, There
from gateway.cluster.told import PART_LOST, Event, Exited, Helper, NotStarted, Order, Ready
from gateway.tasks import cancel_and_wait, spawn

#: Seconds until the loss of a node is known that a llama-server has noticed first; of one that was
#: ready, which others wait for.
_FIND_OUT: Final = 8.0
_FIND_OUT_SOON: Final = 3.0


class SpanningRun(ClusterRun):
    """A run of ``order`` on ``node``, with ``helpers``, in the order of ``order.helpers``."""

    def __init__(
        self,
        node: There,
        order: Order,
        log: LogRing,
        helpers: Sequence[ClusterRun],
        ready: Ready | None = None,
    ) -> None:
        super().__init__(node, order, log, ready)
        self._helpers = helpers
        self._parted: End | None = None  # by the end of a helper
        for helper in helpers:
            helper.changed = self._helper_changed

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that it is on; the one that leads comes first."""
        return (self.node, *(helper.node for helper in self._helpers))

    @property
    def held(self) -> Placement:
        """What it has of all of them."""
        return sum((helper.held for helper in self._helpers), super().held)

    async def prepare(self, tuning: Tuning | None, devices: tuple[str, ...]) -> None:
        """Have the devices lent, and then the node that leads prepare it."""
        if not self._adopted:
            self.order = replace(self.order, helpers=await self._lend())
        await super().prepare(tuning, devices)

    async def _lend(self) -> tuple[Helper, ...]:
        lending = [spawn(helper.lend(), name="lend devices") for helper in self._helpers]
        try:
            await asyncio.wait(lending, return_when=asyncio.FIRST_EXCEPTION)
            await cancel_and_wait(*(task for task in lending if not task.done()))
            failed = [task for task in lending if not task.cancelled() and task.exception()]
            for task in failed:
                task.result()
        except BaseException:
            await cancel_and_wait(*lending)
            await self.end()
            raise
        return tuple(task.result() for task in lending)

    # --- what is told --------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Take an event of the node that leads.

        It may notice first that a helper is lost; whether the helper's node is, or only its
        rpc-server, that one tells, or its silence.
        """
        lost = isinstance(event, Exited | NotStarted) and event.code == PART_LOST
        if lost and self._parted is None:
            spawn(self._find_out(event), name=f"find out about {self.order.spec.name}")
        else:
            super().hear(event)

    async def _find_out(self, event: Event) -> None:
        patience = _FIND_OUT if isinstance(event, NotStarted) else _FIND_OUT_SOON
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._parted is None:
                    self._news.clear()
                    await self._news.wait()
        if isinstance(event, Exited):
            event = replace(event, code=NODE_LOST)  # most likely
        super().hear(event)

    def _helper_changed(self) -> None:
        gone = next((helper for helper in self._helpers if helper.is_over), None)
        if gone is None or self._parted is not None or self._over:
            self.changed()
            return
        self._parted = gone.how_it_ended(None, None)
        self._lost = self._parted.error.message
        self._tell()

    def how_it_ended(self, status: int | None, hung: Hang | None) -> End:
        """Return how it ended, as the nodes have told."""
        return self._parted or super().how_it_ended(status, hung)

    # --- the end -------------------------------------------------------------------------------

    async def end(self) -> None:
        """End what is left of it, the part that leads first."""
        await super().end()
        await asyncio.gather(*(helper.end() for helper in self._helpers))

    async def let_go(self) -> None:
        """Close the connections, and leave it running for whoever finds it."""
        await super().let_go()
        for helper in self._helpers:
            await helper.let_go()


def run_of(
    node: There, order: Order, log: LogRing, helpers: Sequence[ClusterRun], ready: Ready | None
) -> ClusterRun:
    """Return a run of ``order`` on ``node``; with ``helpers``, if there are any."""
    if helpers:
        return SpanningRun(node, order, log, helpers, ready)
    return ClusterRun(node, order, log, ready)


def lending(order: Order, helper: Helper) -> Order:
    """Return the order for the part of a helper."""
    server = f"{order.server}.{helper.node}"
    return replace(order, server=server, on=helper.on, taken={}, offers=(), helpers=(), lends=True)
