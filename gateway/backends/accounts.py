"""The needs of models and the capacity of the machine, put together for the scheduler's
decisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gateway.backends.capacity import Capacity
from gateway.backends.device_options import chosen_devices
from gateway.backends.fallback import gpu_required
from gateway.backends.memory import Need, Needs
from gateway.backends.options import gpu_layers
from gateway.backends.placement import Card, Demand, Memory, Placement, Resident
from gateway.backends.ram import RAM
from gateway.backends.tuning import Grant, Tuning, choose, is_open, margin
from gateway.errors import GatewayError, Unavailable
from gateway.models.local_model import LocalModel

#: The share of a device's free memory that a model is granted beyond its usual needs.
_SHARE = 0.9


class Accounts:
    """The ``needs`` of models and the ``capacity`` of the machine (``None``: it is not looked at).

    ``environ`` is the gateway's own environment. For one event loop.
    """

    def __init__(
        self,
        needs: Needs,
        capacity: Capacity | None,
        environ: Mapping[str, str],
        flags: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """``flags``: those that the llama-server which is used knows; blocks."""
        self._needs = needs
        self.capacity = capacity
        self._environ = environ
        self._flags = flags
        self.looking = False

    # --- what models need ----------------------------------------------------------------------

    def known(self, spec: LocalModel) -> Need | None:
        """See :meth:`Needs.known`."""
        return self._needs.known(spec)

    async def need_of(self, spec: LocalModel) -> Need:
        """See :meth:`Needs.need_of`."""
        return await self._needs.need_of(spec)

    async def measure(
        self, spec: LocalModel, group: int, on: Placement, tuning: Tuning | None = None
    ) -> Placement:
        """Learn what a child that is ready has taken; returns how much of that is where."""
        need = await self._needs.measure(spec, group, tuning)
        planned = sum(size for name, size in on if name != RAM or not self._needs.gpu)
        if need is None or not planned:
            return on
        return tuple(
            (name, size if name == RAM and self._needs.gpu else need.size * size // planned)
            for name, size in on
        )

    def demand(self, spec: LocalModel) -> Demand:
        """Return what ``spec`` needs, as far as it is known, and where its entry wants to be."""
        need = self.known(spec)
        if need is None:
            return Demand()
        if (capacity := self.capacity) is None or not capacity.machine.gpu:
            return Demand(need.size, need.least)
        demand = Demand(need.size, need.least, need.ram, need.least_ram, scant=need.scant)
        names = [device.name for device in capacity.machine.devices]
        choice = chosen_devices(spec, names, self._environ)
        if choice is None:
            return demand
        return replace(demand, devices=choice.devices, shares=choice.shares)

    # --- what there is -------------------------------------------------------------------------

    def memory(self) -> Memory:
        """Return the memory for a decision that is made now."""
        if self.capacity is None:
            return Memory()
        return self.capacity.now(looking=self.looking)

    async def look(self, residents: Sequence[Resident]) -> bool:
        """Measure free memory. Returns whether a GPU has come or gone, which changes the needs."""
        if self.capacity is None:
            return False
        await self.capacity.look(residents)
        turned = self.capacity.machine.gpu is not self._needs.gpu
        self._needs.gpu = self.capacity.machine.gpu
        return turned

    def flags(self, spec: LocalModel, on: Placement) -> tuple[str, ...]:
        """Return the devices to name to llama-server: where it would spread a model that fits on
        one.
        """
        if (capacity := self.capacity) is None or not capacity.machine.named:
            return ()
        names = [device.name for device in capacity.machine.devices]
        gpus = tuple(name for name, _ in on if name in names)
        if len(names) < 2 or len(gpus) != 1 or chosen_devices(spec, names, self._environ):
            return ()
        return gpus

    # --- what is chosen for a load ---------------------------------------------------------------

    def grant(
        self,
        spec: LocalModel,
        on: Placement,
        taken: Mapping[str, int],
        *,
        shared: bool,
        share: float,
    ) -> Grant | None:
        """Return what ``spec``, placed ``on`` devices beside ``taken``, may have of them.

        All that is left, but what a desktop may want next; where it is ``shared`` with other
        models in use, what it needs. ``share``: of that, where it was too much before. ``None``:
        nothing is to be chosen, or nothing known.
        """
        capacity = self.capacity
        if capacity is None or not is_open(spec, gpu=capacity.machine.gpu):
            return None
        cards = {card.name: card for card in capacity.memory.cards}
        ram, gpu = capacity.memory.ram, capacity.machine.gpu

        def left(card: Card) -> int:
            return max(card.left - taken.get(card.name, 0), 0)

        def granted(card: Card, size: int) -> int:
            own = shared or spec.memory is not None
            most = size if own else max(size, int(left(card) * _SHARE))
            return int(min(left(card), most) * share)

        parts = {name: granted(cards[name], size) for name, size in on if name in cards}
        if not parts:
            return None
        margins: tuple[int, ...] = ()
        if gpu:
            names = self.flags(spec, on) or tuple(
                device.name for device in capacity.machine.devices
            )
            free = {device.name: device.free for device in capacity.machine.devices}
            if all(free[name] is not None for name in names):
                margins = tuple(margin(free[name] or 0, parts.get(name, 0)) for name in names)
        return Grant(
            sum(parts.values()),
            None if ram is None else left(ram),
            margins,
            tuple(parts.items()),
            shared and any(size < int(left(cards[name]) * _SHARE) for name, size in parts.items()),
        )

    async def choose(self, spec: LocalModel, grant: Grant) -> Tuning | None:
        """Return what ``spec`` is started with in the memory that it is granted."""
        return await asyncio.to_thread(self._choose, spec, grant)

    def _choose(self, spec: LocalModel, grant: Grant) -> Tuning | None:
        gpu, capacity = self._needs.gpu, self.capacity
        # A build that lists no devices is older than the flag, and a wrapper might never answer.
        answers = capacity is not None and capacity.machine.named
        fits_itself = gpu and answers and "--fit-target" in self._flags()
        return choose(spec, self._needs.llm_storage, grant, gpu=gpu, fits_itself=fits_itself)

    # --- what is not there ---------------------------------------------------------------------

    def without_gpu(self, spec: LocalModel) -> str | None:
        """Return why ``spec`` will run on the CPU, though there should be a GPU for it."""
        if self.capacity is None or self.capacity.machine.gpu:
            return None
        layers = gpu_layers(spec)
        if layers == 0 and not spec.require_gpu:
            return None
        if (problem := self.capacity.problem) is not None:
            return problem
        if layers is not None or spec.require_gpu:
            return "llama-server finds no GPU that it can use (llama-server --list-devices)"
        return None

    def refusal(self, spec: LocalModel) -> GatewayError | None:
        """Return the error for ``spec`` if it must have a GPU and there is none."""
        if not spec.require_gpu or (why := self.without_gpu(spec)) is None:
            return None
        return gpu_required(spec, why)

    def lacking(self, spec: LocalModel) -> GatewayError:
        """Return the error for ``spec`` where other programs hold the memory that it needs."""
        need = self.known(spec)
        assert need is not None
        assert self.capacity is not None
        return Unavailable(
            self.capacity.lacking(spec.name, self.demand(spec), str(need.source)),
            code="not_enough_memory",
            headers={"Retry-After": "60"},
        )
