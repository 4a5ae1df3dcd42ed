"""What a gateway has reserved in Ray for its llama-servers on one node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from gateway.backends.placement import Card, Placement
from gateway.cluster.link import Link, Refused
from gateway.cluster.told import Has, Order, is_resource, reservation, resource
from gateway.errors import GatewayError
from gateway.tasks import cancel_and_wait, spawn

_log = logging.getLogger(__name__)

_MIB: Final = 2**20
#: Seconds to wait until Ray has taken back what was reserved, and between two tries.
_RELEASE: Final = 2.0
_AGAIN: Final = 1.0


class NoRoom(GatewayError):
    """503: Ray doesn't reserve what a llama-server needs on its node."""

    status = 503
    default_code = "no_room"


class Reservations:
    """The reservations of ``gateway`` on ``node``, through ``link``.

    ``has``: what the node has. ``orders``: those of what runs there for the gateway, by server.
    """

    def __init__(
        self,
        gateway: str,
        node: str,
        link: Link,
        has: Callable[[], Has],
        orders: Callable[[], dict[str, Order]],
    ) -> None:
        self._gateway = gateway
        self._node = node
        self._link = link
        self._has = has
        self._orders = orders
        self._releasing: dict[str, asyncio.Task[None]] = {}
        self._sweeping: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Leave everything as it is."""
        await cancel_and_wait(self._sweeping, *self._releasing.values())

    async def reserve(self, order: Order) -> None:
        """Reserve what ``order`` needs. Raises :class:`Unreachable`; :class:`NoRoom` where Ray has
        given that to something that we don't know of.
        """
        name = reservation(self._gateway, order.server)
        try:
            await self._link.reserve(name, self._resources(order))
        except Refused as error:
            raise NoRoom(error.message) from error

    def _resources(self, order: Order) -> dict[str, float]:
        memory = self._has().memory
        cards: tuple[Card, ...] = memory.cards
        if memory.ram is not None:
            cards = (*cards, memory.ram)
        sizes = {card.name: card.size for card in cards}
        # What is too big for all there is may try. Ray would never give it so much, nor all there
        # is where another gateway has a little of it: it gets what it takes once that is known.
        return {
            resource(self._node, name): size // _MIB
            for name, size in order.on
            if _MIB <= size <= sizes.get(name, size)
        } or {resource(self._node, "node"): 0.001}

    async def give_back(self, server: str) -> None:
        """Give back what was reserved; while the head is away that goes on without us."""
        releasing = spawn(self._release(server), name=f"release {server}")
        self._releasing[server] = releasing
        releasing.add_done_callback(lambda _: self._releasing.pop(server, None))
        await asyncio.wait([releasing], timeout=_RELEASE)

    async def _release(self, server: str) -> None:
        while True:
            with contextlib.suppress(GatewayError):
                await self._link.release(reservation(self._gateway, server))
                return
            await asyncio.sleep(_AGAIN)

    def adjust(self, order: Order, on: Placement) -> None:
        """Reserve what it has taken ``on`` devices, in place of what it was thought to need: others
        may be placed beside it.
        """
        taken = replace(order, on=on)
        if self._resources(taken) != self._resources(order):
            spawn(self._adjust(taken), name=f"adjust what {order.server} has reserved")

    async def _adjust(self, order: Order) -> None:
        name = reservation(self._gateway, order.server)
        with contextlib.suppress(GatewayError):
            await self._link.release(name)
            await self.reserve(order)
            if order.server not in self._orders():  # it has ended meanwhile
                await self._link.release(name)

    def keep(self, server: str) -> None:
        """Don't give back what is reserved for ``server`` after all: it has been found again."""
        if (releasing := self._releasing.get(server)) is not None:
            releasing.cancel()

    # --- after a time in which the node, or Ray, wasn't reached ----------------------------------

    async def sweep(self, there: Collection[str], *, alone: bool) -> None:
        """Put in order, without waiting for that, what is reserved: of llama-servers those are
        ``there``. ``alone``: no other gateway of our group may be about to start one.
        """
        await cancel_and_wait(self._sweeping)
        name = f"sweep what is reserved on {self._node}"
        self._sweeping = spawn(self._sweep(there, alone=alone), name=name)

    async def _sweep(self, there: Collection[str], *, alone: bool) -> None:
        with contextlib.suppress(GatewayError):
            prefix = reservation(self._gateway, "")
            names = await self._link.reserved(prefix)
            orders = self._orders()
            for server, order in orders.items():
                if server in there and prefix + server not in names:  # it was lost in between
                    await self.reserve(order)
            if not alone:
                return
            for name, resources in names.items():
                server = name.removeprefix(prefix)
                if server in there or server in orders:
                    continue
                if any(is_resource(one, self._node) for one in resources):
                    _log.info("giving back what is reserved on %s for nothing there", self._node)
                    await self._link.release(name)
