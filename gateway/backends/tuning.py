"""Chooses at each load what an entry of models.json leaves open: its context, its layers on GPUs.

A model is granted memory when it is placed: what is left of its devices beside other models. On
GPUs a llama-server with ``--fit`` chooses what fits there, since it knows its own buffers to the
byte; it is told how much to leave. In RAM, of which that looks at the whole and not at what is
free, and for older builds, it is chosen here by an estimate (:mod:`gateway.backends.estimate`).
What the entry says, or its ``extraArgs`` or ``env``, is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from gateway.backends.command import model_files
from gateway.backends.estimate import USUAL_CONTEXT, Estimate, estimate, header_of
from gateway.backends.options import (
    context_is_open,
    gpu_layers,
    layers_are_open,
    mapped,
    scattered,
    shares_context,
)
from gateway.backends.placement import Placement
from gateway.backends.ram import RAM
from gateway.errors import LoadFailed
from gateway.models.gguf_header import BadGguf
from gateway.models.local_model import LocalModel

#: The least tokens of context of a slot, unless the model was trained with fewer.
LEAST_CONTEXT: Final = 4096
_MIB: Final = 2**20
_GIB: Final = 2**30
#: llama.cpp gives each slot a whole number of such pieces.
_PIECE: Final = 256


@dataclass(frozen=True, slots=True)
class Grant:
    """The memory that one model may take. Bytes.

    ``main``: of all its GPUs together, or of RAM where there is none. ``ram``: beside GPUs.
    ``margins``: MiB that it has to leave of each GPU it sees, in llama-server's order.
    ``shared``: there could be more, and that is left to other models which are in use.
    """

    main: int
    ram: int | None = None
    margins: tuple[int, ...] = ()
    parts: Placement = ()
    shared: bool = False

    @property
    def devices(self) -> tuple[str, ...]:
        """The GPUs."""
        return tuple(name for name, _ in self.parts if name != RAM)

    def placement(self, on: Placement, needs: int | None = None) -> Placement:
        """Return ``on`` with the granted bytes, or with their shares of ``needs`` bytes in all."""
        parts = dict(self.parts)
        if needs is not None and self.main:
            parts = {name: size * min(needs, self.main) // self.main for name, size in self.parts}
        return tuple((name, parts.get(name, size)) for name, size in on)


@dataclass(frozen=True, slots=True)
class Tunable:
    """The facts of a model's file: the tokens of context it was trained with, and its layers.

    The output layer counts as one, as it does for llama.cpp.
    """

    trained: int
    layers: int


@dataclass(frozen=True, slots=True)
class Tuning:
    """The choice for one load, and its reason. ``None`` in a field: not chosen here, or not known.

    ``context``: tokens for each request. ``room``: the bytes granted, for all of the model.
    """

    context: int | None
    trained: int
    layers: int | None
    of_layers: int
    devices: tuple[str, ...]
    room: int
    #: The names of the choices that the entry left open: ``context``, ``layers``.
    chosen: tuple[str, ...]
    by: str  # "gateway" or "llama-server"
    shared: bool = False
    total: int | None = None  # tokens, of all slots together: --ctx-size
    variables: Mapping[str, str] = field(default_factory=dict)
    needs: int | None = None  # bytes, by the estimate, of GPUs or of RAM

    @property
    def params(self) -> dict[str, int]:
        """The chosen values, as ``params`` of models.json would have them."""
        told = {"ctxSize": self.total, "gpuLayers": self.layers if self.by == "gateway" else None}
        open_ = {"ctxSize": "context", "gpuLayers": "layers"}
        return {k: v for k, v in told.items() if v is not None and open_[k] in self.chosen}

    def apply(self, spec: LocalModel) -> LocalModel:
        """Return ``spec`` with the choices put in, as if models.json said so."""
        return with_params(spec, self.params)

    def came_out(self, context: int | None, layers: int | None) -> Tuning:
        """Return the tuning with the values that llama-server reports."""
        if layers is None and self.by == "llama-server" and "layers" in self.chosen:
            # It takes layers off GPUs only when it can take no more off the context.
            least = min(LEAST_CONTEXT, self.trained)
            if context is not None and "context" in self.chosen and context > least:
                layers = self.of_layers
        return replace(
            self,
            context=context if context is not None else self.context,
            layers=layers if layers is not None else self.layers,
        )

    def report(self) -> dict[str, Any]:
        """Return the choices for administrators, with one sentence for people in ``text``."""
        return {
            "context": self.context,
            "trained": self.trained,
            "layers": self.layers,
            "of_layers": self.of_layers,
            "devices": list(self.devices),
            "room": self.room,
            "chosen": list(self.chosen),
            "by": self.by,
            "params": self.params,
            "text": self.text,
        }

    @property
    def text(self) -> str:
        """The choice and its reason, in one line."""
        parts = []
        if "context" in self.chosen:
            parts.append(self._context_text())
        if "layers" in self.chosen and self.devices:
            parts.append(self._layers_text())
        return "; ".join(parts)

    def _context_text(self) -> str:
        if self.context is None:
            return f"as much context as fits {_gib(self.room)}"
        if self.context >= self.trained:
            return f"context {self.context}, all that it was trained with"
        which = f"context {self.context} of {self.trained}"
        if self.shared:
            return f"{which}: the memory for more is left to other models in use"
        if self.context <= LEAST_CONTEXT and (self.needs or 0) > self.room:
            return f"{which}: the least there is, {_gib(self.room)} free allows no more"
        return f"{which}: what {_gib(self.room)} free allows"

    def _layers_text(self) -> str:
        where = " and ".join(self.devices)
        if self.layers is None:
            return f"as many of its {self.of_layers} layers on {where} as fit"
        if self.layers >= self.of_layers:
            return f"all {self.of_layers} layers on {where}"
        if self.layers == 0:
            return f"no layer on {where}: {_gib(self.room)} free is too little for one"
        some = f"{self.layers} of {self.of_layers} layers on {where}"
        return f"{some}: what {_gib(self.room)} free allows"


def with_params(spec: LocalModel, params: Mapping[str, int]) -> LocalModel:
    """Return ``spec`` with ``ctxSize`` and ``gpuLayers`` of ``params``, if those have them."""
    own = spec.params
    context = params.get("ctxSize", own.ctx_size)
    layers = params.get("gpuLayers", own.gpu_layers)
    return replace(spec, params=replace(own, ctx_size=context, gpu_layers=layers))


def is_open(spec: LocalModel, *, gpu: bool) -> bool:
    """Return whether there is anything to choose for ``spec``."""
    return context_is_open(spec) or (gpu and layers_are_open(spec))


def read_model(spec: LocalModel, llm_storage: Path) -> Tunable | None:
    """Return what the file of ``spec`` says; ``None`` where it says too little. Blocks."""
    try:
        header = header_of(model_files(spec, llm_storage)["params.model"])
    except (BadGguf, OSError, ValueError, LoadFailed):
        return None
    prefix = header.values.get("general.architecture")
    trained = header.values.get(f"{prefix}.context_length")
    layers = header.values.get(f"{prefix}.block_count")
    if not isinstance(trained, int) or not isinstance(layers, int) or trained < 1 or layers < 1:
        return None
    return Tunable(trained, layers + 1)


def usual(spec: LocalModel, model: Tunable | None) -> LocalModel:
    """Return ``spec`` with the usual context, if it leaves that open: its demand is measured by
    that.
    """
    if model is None or not context_is_open(spec):
        return spec
    return _with(spec, min(model.trained, USUAL_CONTEXT), None)


def scant(spec: LocalModel, model: Tunable | None) -> LocalModel | None:
    """Return ``spec`` as it runs with a nearly full GPU: with all of its layers in RAM.

    ``None``: they may not be.
    """
    if model is None or not layers_are_open(spec) or not mapped(spec):
        return None
    context = min(model.trained, LEAST_CONTEXT) if context_is_open(spec) else None
    return _with(spec, context, 0)


def choose(
    spec: LocalModel, llm_storage: Path, grant: Grant, *, gpu: bool, fits_itself: bool
) -> Tuning | None:
    """Return what ``spec`` is started with in the memory it is granted. Blocks: reads headers.

    ``fits_itself``: its llama-server knows ``--fit``. ``None``: nothing is open, or nothing can be
    said, and llama-server does what it does by itself.
    """
    if not is_open(spec, gpu=gpu) or (model := read_model(spec, llm_storage)) is None:
        return None
    chosen = ("context",) if context_is_open(spec) else ()
    on_gpus = gpu and gpu_layers(spec) != 0
    if gpu and layers_are_open(spec):
        chosen = (*chosen, "layers")
    tuning = Tuning(
        context=None,
        trained=model.trained,
        layers=None,
        of_layers=model.layers,
        devices=grant.devices if on_gpus else (),
        room=grant.main if on_gpus or not gpu or grant.ram is None else grant.ram,
        chosen=chosen,
        by="llama-server",
        shared=grant.shared,
    )
    if on_gpus and fits_itself:
        return replace(tuning, variables=_fit(grant, model)) if grant.margins else tuning
    if on_gpus and scattered(spec):
        return None  # where its parts go, nobody counts here
    return _chosen_here(spec, llm_storage, grant, model, tuning, gpu=gpu)


def _fit(grant: Grant, model: Tunable) -> dict[str, str]:
    # As variables: a build that doesn't know them ignores them.
    return {
        "LLAMA_ARG_FIT_TARGET": ",".join(map(str, grant.margins)),
        "LLAMA_ARG_FIT_CTX": str(min(LEAST_CONTEXT, model.trained)),
    }


def _chosen_here(
    spec: LocalModel,
    llm_storage: Path,
    grant: Grant,
    model: Tunable,
    tuning: Tuning,
    *,
    gpu: bool,
) -> Tuning:
    def needs(context: int | None, layers: int | None) -> Estimate:
        return estimate(_with(spec, context, layers), llm_storage, gpu=gpu)

    def fits(need: Estimate) -> bool:
        if need.total > grant.main:
            return False
        return not gpu or grant.ram is None or need.kept <= grant.ram

    sizes: list[int | None] = [None]
    if "context" in tuning.chosen:
        sizes = list(_sizes(model.trained))
    layers = model.layers if "layers" in tuning.chosen else None
    context = next((size for size in sizes if fits(needs(size, layers))), sizes[-1])
    need = needs(context, layers)
    if layers is not None and need.total > grant.main:
        few, many = 0, layers
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (middle, many) if fits(needs(context, middle)) else (few, middle)
        layers, need = few, needs(context, few)
    return replace(
        tuning,
        context=context,
        total=None if context is None else context * _slots(spec),
        layers=layers,
        by="gateway",
        needs=need.total,
    )


def _sizes(trained: int) -> Iterator[int]:
    """Yield the contexts to try, from the whole down. They are so few that the next load mostly
    takes the same one.

    Then measurements and saved prompts can be reused.
    """
    size = trained
    while size > LEAST_CONTEXT:
        yield size
        if (three := _whole_pieces(size * 3 // 4)) > LEAST_CONTEXT:
            yield three
        size = _whole_pieces(size // 2)
    yield min(trained, LEAST_CONTEXT)


def _whole_pieces(tokens: int) -> int:
    return tokens // _PIECE * _PIECE


def _slots(spec: LocalModel) -> int:
    return 1 if shares_context(spec) else spec.parallel


def _with(spec: LocalModel, context: int | None, layers: int | None) -> LocalModel:
    """Return ``spec`` with these numbers, unless they are ``None``. ``context``: of each slot."""
    params: dict[str, int] = {}
    if context is not None:
        params["ctxSize"] = context * _slots(spec)
    if layers is not None:
        params["gpuLayers"] = layers
    return with_params(spec, params)


def margin(free: int, granted: int) -> int:
    """Return the MiB to leave on a device with ``free`` bytes, of which ``granted`` may be
    taken.
    """
    return max(free - granted, 0) // _MIB


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
