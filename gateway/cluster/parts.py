"""The parts of a model that are on other nodes, as the llama-server that leads sees them.

llama.cpp divides a model by layers, in the proportions of what each device was given. Devices of
other nodes come first, as llama.cpp itself has them: so the last layers, and the output, are on the
machine that leads, if that has a GPU. Without one, its own part stays in RAM, where llama.cpp
leaves the first layers.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gateway.backends.placement import Placement
from gateway.backends.tuning import read_model, usual
from gateway.cluster.rpc_server import LOOPBACK
from gateway.cluster.told import Helper
from gateway.cluster.tunnel import Tunnel
from gateway.models.local_model import LocalModel
from gateway.upstream import TcpAddress

#: More layers than any model has.
_ALL: Final = 9999
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Division:
    """How a llama-server is told to divide a model: ``devices`` by its names, and ``variables``."""

    devices: tuple[str, ...]
    variables: dict[str, str]


class Parts:
    """The ways to the ``helpers`` of ``spec``, of connections that ``ways`` is for.

    ``breaks`` is called when one of them ends.
    """

    def __init__(
        self,
        spec: LocalModel,
        helpers: Sequence[Helper],
        ways: ssl.SSLContext,
        breaks: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._helpers = helpers
        self._ways = ways
        self._breaks = breaks
        self._tunnels: list[Tunnel] = []

    @property
    def broken(self) -> str | None:
        """Which way has ended though nobody here has hung up, and why."""
        for tunnel in self._tunnels:
            if tunnel.broken is not None:
                return f"the way to its part on {tunnel.name} is lost ({tunnel.broken})"
        return None

    async def open(self, own: Placement, gpus: Sequence[str], llm_storage: Path) -> Division:
        """Open the ways, and return what the llama-server is to be told.

        ``own``: what it has of this machine, ``gpus``: which of that are GPUs.
        """
        for helper in self._helpers:
            tunnel = Tunnel(helper.node, _front(helper, self._ways), self._breaks)
            self._tunnels.append(tunnel)
            await tunnel.open()
        ports = [tunnel.port for tunnel in self._tunnels]
        model = await asyncio.to_thread(read_model, self._spec, llm_storage)
        division = divide(own, gpus, self._helpers, ports, None if model is None else model.layers)
        if (wanted := usual(self._spec, model)) is not self._spec:
            division.variables["LLAMA_ARG_CTX_SIZE"] = str(wanted.params.ctx_size)
        return division

    async def close(self) -> None:
        """Close them."""
        for tunnel in self._tunnels:
            await tunnel.close()


def led(spec: LocalModel) -> LocalModel:
    """Return ``spec`` without ``gpuLayers``, which is about one machine."""
    return replace(spec, params=replace(spec.params, gpu_layers=None))


def divide(
    own: Placement,
    gpus: Sequence[str],
    helpers: Sequence[Helper],
    ports: Sequence[int],
    layers: int | None,
) -> Division:
    """Return how a model is divided. ``ports``: where the ways to the helpers begin; ``layers``: as
    many as it has, the output layer among them, if that is known.
    """
    lent = [size for helper in helpers for _, size in helper.on]
    mine = [(name, size) for name, size in own if name in gpus and size > 0]
    devices = [f"RPC{number}" for number in range(len(lent))] + [name for name, _ in mine]
    sizes = [*lent, *(size for _, size in mine)]
    variables = {
        "LLAMA_ARG_RPC": ",".join(f"{LOOPBACK}:{port}" for port in ports),
        "LLAMA_ARG_TENSOR_SPLIT": ",".join(str(max(size // _MIB, 1)) for size in sizes),
        "LLAMA_ARG_N_GPU_LAYERS": str(_offloaded(sizes, own, gpus, layers)),
        "LLAMA_ARG_FIT": "off",  # what goes where is decided
    }
    return Division(tuple(devices), variables)


def _offloaded(
    sizes: Sequence[int], own: Placement, gpus: Sequence[str], layers: int | None
) -> int:
    in_ram = sum(size for name, size in own if name not in gpus)
    if layers is None or not in_ram:
        return _ALL
    return max(1, layers * sum(sizes) // (sum(sizes) + in_ram))


def _front(helper: Helper, ways: ssl.SSLContext) -> TcpAddress:
    return TcpAddress(
        helper.host, helper.port, ways, server_name=helper.server_name, key=helper.key
    )
