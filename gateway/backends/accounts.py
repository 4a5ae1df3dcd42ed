"""What models need and what there is for them, put together for the scheduler's decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gateway.backends.capacity import Capacity
from gateway.backends.device_options import chosen_devices
from gateway.backends.fallback import gpu_required
from gateway.backends.memory import Need, Needs
from gateway.backends.options import gpu_layers
from gateway.backends.placement import Demand, Memory, Placement, Resident
from gateway.backends.ram import RAM
from gateway.catalog import ModelSpec
from gateway.errors import GatewayError, Unavailable


class Accounts:
    """``needs`` of models, and the ``capacity`` of the machine (``None``: it is not looked at).

    ``environ`` is the gateway's own environment. For one event loop.
    """

    def __init__(self, needs: Needs, capacity: Capacity | None, environ: Mapping[str, str]) -> None:
        self._needs = needs
        self.capacity = capacity
        self._environ = environ
        self.looking = False

    # --- what models need ----------------------------------------------------------------------

    def known(self, spec: ModelSpec) -> Need | None:
        """As :meth:`Needs.known`."""
        return self._needs.known(spec)

    async def need_of(self, spec: ModelSpec) -> Need:
        """As :meth:`Needs.need_of`."""
        return await self._needs.need_of(spec)

    async def measure(self, spec: ModelSpec, group: int, on: Placement) -> Placement:
        """Learn what a child that is ready has taken; returns how much of that is where."""
        need = await self._needs.measure(spec, group)
        planned = sum(size for name, size in on if name != RAM or not self._needs.gpu)
        if need is None or not planned:
            return on
        return tuple(
            (name, size if name == RAM and self._needs.gpu else need.size * size // planned)
            for name, size in on
        )

    def demand(self, spec: ModelSpec) -> Demand:
        """What ``spec`` needs, as far as it is known, and where its entry wants to be."""
        need = self.known(spec)
        if need is None:
            return Demand()
        if (capacity := self.capacity) is None or not capacity.machine.gpu:
            return Demand(need.size, need.least)
        demand = Demand(need.size, need.least, need.beside, need.least_beside)
        names = [device.name for device in capacity.machine.devices]
        choice = chosen_devices(spec, names, self._environ)
        if choice is None:
            return demand
        return replace(demand, devices=choice.devices, shares=choice.shares)

    # --- what there is -------------------------------------------------------------------------

    def memory(self) -> Memory:
        """The memory for a decision that is made now."""
        if self.capacity is None:
            return Memory()
        return self.capacity.now(looking=self.looking)

    async def look(self, residents: Sequence[Resident]) -> bool:
        """See what is free; returns whether a GPU has come or gone, so that needs are others."""
        if self.capacity is None:
            return False
        await self.capacity.look(residents)
        turned = self.capacity.machine.gpu is not self._needs.gpu
        self._needs.gpu = self.capacity.machine.gpu
        return turned

    def flags(self, spec: ModelSpec, on: Placement) -> tuple[str, ...]:
        """The devices to name to llama-server: where it would spread a model that fits on one."""
        if (capacity := self.capacity) is None or not capacity.machine.named:
            return ()
        names = [device.name for device in capacity.machine.devices]
        gpus = tuple(name for name, _ in on if name in names)
        if len(names) < 2 or len(gpus) != 1 or chosen_devices(spec, names, self._environ):
            return ()
        return gpus

    # --- what is not there ---------------------------------------------------------------------

    def without_gpu(self, spec: ModelSpec) -> str | None:
        """Why ``spec`` will run on the CPU, though there should be a GPU for it."""
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

    def refusal(self, spec: ModelSpec) -> GatewayError | None:
        """The error for ``spec`` if it must have a GPU and there is none."""
        if not spec.require_gpu or spec.url or (why := self.without_gpu(spec)) is None:
            return None
        return gpu_required(spec, why)

    def lacking(self, spec: ModelSpec) -> GatewayError:
        """The error for ``spec`` where other programs hold the memory that it needs."""
        need = self.known(spec)
        assert need is not None
        assert self.capacity is not None
        return Unavailable(
            self.capacity.lacking(spec.name, self.demand(spec), str(need.source)),
            code="not_enough_memory",
            headers={"Retry-After": "60"},
        )
