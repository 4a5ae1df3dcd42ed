"""Estimates how much memory a model will take, from its files and its entry in models.json.

Used until it has been loaded once and could be measured. Too much is better than too little:
sliding windows and compressed attention are counted as if they were full attention.

- **Weights**: the sizes of the files, all parts of a split one; projector and draft model too.
- **KV cache**: for each token of context and each layer, heads x (key + value length) numbers.
- **Compute buffers**: see :meth:`_ModelShape.compute`.
- **The process**: code and small tables; on a GPU, the context that its driver makes.

Beside that stands what a model takes for sure (``least``): it is refused for want of that only. Not
in it are weights that are mapped (RAM), what is not said (the context is chosen at the load), and
what isn't counted as it is.

What a llama-server may put into RAM beside that is not in it: the cache of old prompts
(``--cache-ram``) grows with use, LoRA adapters are rare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from gateway.backends.command import model_files
from gateway.backends.options import (
    gpu_layers,
    mapped,
    number,
    option,
    scattered,
    shares_context,
)
from gateway.errors import LoadFailed
from gateway.models.gguf_header import BadGguf, Header, read_header
from gateway.models.local_model import LocalModel
from gateway.models.paths import split_parts

_MIB = 2**20
#: Tokens of context assumed for a slot if nothing says how many: enough for most uses. With more
#: memory there may be more (:mod:`gateway.backends.tuning`).
USUAL_CONTEXT = 32_768
#: Bytes per number in the KV cache: block size over elements (ggml-common.h).
_CACHE_TYPES: Mapping[str, float] = MappingProxyType(
    {
        "f32": 4.0,
        "f16": 2.0,
        "bf16": 2.0,
        "q8_0": 34 / 32,
        "q5_1": 24 / 32,
        "q5_0": 22 / 32,
        "q4_1": 20 / 32,
        "q4_0": 18 / 32,
        "iq4_nl": 18 / 32,
    }
)
#: Measured: 55 MiB for the bundled server in RAM. CUDA's context and its workspace take
#: 300 to 500 MiB.
_PROCESS_RAM = 64 * _MIB
_PROCESS_GPU = 512 * _MIB
#: Header keys of models with layers whose cache is smaller than that of full attention, or absent.
_UNCOUNTED = (
    "attention.sliding_window",
    "attention.chunk_size",
    "attention.kv_lora_rank",
    "attention.shared_kv_layers",
    "full_attention_interval",
    "ssm.inner_size",
    "ssm.state_size",
)
#: Bytes for the compute buffers of a projector, whose header says little about them.
_PROJECTOR = 256 * _MIB
#: llama.cpp gives each slot a whole number of such pieces.
_CONTEXT_PIECE = 256
#: The share of the estimate that is certain: some tables stay in RAM.
_SURE = 0.85
#: The same for models with per-layer embeddings (Gemma 3n), which stay in RAM.
_SURE_OF_PER_LAYER = 0.5


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate in bytes. ``compute`` is the part of ``total`` that a fresh process may not have
    touched yet.

    ``from_header`` is false for a rough guess from the file's size alone. ``ram`` is what goes
    to RAM, beside ``total`` on GPUs, where not all layers are offloaded.
    """

    total: int
    compute: int
    from_header: bool
    ram: int = 0
    least: int = 0  # of total, for sure
    least_ram: int = 0  # of ram
    kept: int = 0  # of total in RAM, or of ram: what is no page of the model's file


def estimate(spec: LocalModel, llm_storage: Path, *, gpu: bool) -> Estimate:
    """Return what ``spec`` will take of the GPUs' memory, or of RAM. Blocking; never raises.

    Files that are not there count nothing: the start will say what is wrong with them.
    """
    try:
        files = model_files(spec, llm_storage)
    except LoadFailed:
        return Estimate(0, 0, False)
    parts = split_parts(files["params.model"])
    try:
        # All of what is asked for stands in the first part.
        model = _ModelShape(header_of(parts[0]), spec)
    except (BadGguf, OSError):
        size = _size(*parts)
        whole = (gpu_layers(spec) is None and not scattered(spec)) if gpu else not mapped(spec)
        guess = int(size * 1.1) + 512 * _MIB if size else 0
        return Estimate(guess, 0, False, least=int(size * _SURE) if whole else 0)
    offloaded = _offloaded(spec, model.layers) if gpu else 1.0
    weights = _size(*parts)
    layers = weights + model.cache
    kept = 0 if mapped(spec) else weights
    least = (model.sure * (weights if gpu else kept) + model.sure_cache) * offloaded
    if gpu and scattered(spec):
        least = 0.0
    total = layers * offloaded + (_PROCESS_GPU if gpu else _PROCESS_RAM)
    compute = model.compute(gpu=gpu)
    if projector := files.get("mmproj"):
        total += _size(projector)
        compute += _PROJECTOR
    if draft := files.get("draftModel"):
        total += _size(*split_parts(draft))
        try:
            model = _ModelShape(header_of(draft), spec)
            total += model.cache
            compute += model.compute(gpu=gpu)
        except (BadGguf, OSError):
            pass
    ram, least_ram = int(layers * (1 - offloaded)), int(kept * (1 - offloaded) * _SURE)
    if gpu:
        pages = 0.0 if not mapped(spec) else weights * (1 - offloaded)
        left = ram - pages
    else:
        left = total + compute - (weights if mapped(spec) else 0)
    return Estimate(int(total + compute), int(compute), True, ram, int(least), least_ram, int(left))


def header_of(file: Path) -> Header:
    """Return the header of ``file``, read again only when it has changed. Blocks.

    Raises :class:`BadGguf` or ``OSError``. One choice asks for the same one many times.
    """
    status = file.stat()
    return _header_of(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _header_of(file: Path, _modified: int, _size: int) -> Header:
    return read_header(file)


def _size(*files: Path) -> int:
    total = 0
    for file in files:
        try:
            total += file.stat().st_size
        except OSError:
            continue
    return total


class _ModelShape:
    """The values of one header, and of the settings, that decide about memory."""

    def __init__(self, header: Header, spec: LocalModel) -> None:
        architecture = header.values.get("general.architecture", "")
        self._header = header
        self._prefix = f"{architecture}."
        self.layers = self._number("block_count")
        vocabulary = header.lengths.get("tokenizer.ggml.tokens", 0)
        self._vocabulary = self._number("vocab_size") or vocabulary
        self._spec = spec
        context = number(spec, spec.params.ctx_size, "-c --ctx-size", "CTX_SIZE")
        self._context_said = bool(context)
        if not context:
            # Builds divide it among the slots, or give it to each, as the bundled one does.
            slots = 1 if shares_context(spec) else spec.parallel
            context = min(self._number("context_length"), USUAL_CONTEXT) * slots
        piece = spec.parallel * _CONTEXT_PIECE
        self._context = -(-max(context, 0) // piece) * piece

    @property
    def cache(self) -> float:
        """The bytes of the KV cache, and of the states of layers without one."""
        states = self._number("ssm.inner_size") * (
            self._number("ssm.state_size") + self._number("ssm.conv_kernel")
        )
        recurrent = self.layers * states * 4 * self._spec.parallel
        if self._header.values.get(self._prefix + "attention.causal") is False:
            return recurrent  # an encoder, for embeddings, sees a text once and keeps nothing
        heads = self._each_layer("attention.head_count")
        key_value_heads = self._each_layer("attention.head_count_kv", heads)
        per_head = self._number("embedding_length") // max(*heads, 1) if heads else 0
        keys = self._number("attention.key_length") or per_head
        values = self._number("attention.value_length") or per_head
        each = keys * self._cache_type("k") + values * self._cache_type("v")
        return self._context * sum(key_value_heads) * each + recurrent

    @property
    def sure(self) -> float:
        """The share of the weights that certainly goes where the layers go."""
        return _SURE_OF_PER_LAYER if self._number("embedding_length_per_layer_input") else _SURE

    @property
    def sure_cache(self) -> float:
        """The bytes of the KV cache that are certain: none for kinds of attention that are only
        estimated.
        """
        if not self._context_said or any(map(self._number, _UNCOUNTED)):
            return 0.0
        if {"-nkvo", "--no-kv-offload"} & {*self._spec.extra_args}:
            return 0.0
        return self.cache * _SURE if "LLAMA_ARG_NO_KV_OFFLOAD" not in self._spec.env else 0.0

    def compute(self, *, gpu: bool) -> float:
        """Return bytes of the scratch buffers for one micro-batch, all in 32-bit floats but the
        mask.

        About eight vectors of embedding length for each token and three of the feed-forward's,
        the attention's mask, and logits: a GPU reserves them for every token, in RAM only those
        of the tokens that are asked for, one a slot, are ever touched. Flash attention is
        assumed (the default since 2025): without, scores of all heads come on top.
        """
        spec = self._spec
        batch = number(spec, spec.params.batch_size, "-b --batch-size", "BATCH") or 2048
        tokens = min(batch, number(spec, None, "-ub --ubatch-size", "UBATCH") or 512)
        feed_forward = max(self._each_layer("feed_forward_length"), default=0)
        vectors = tokens * (8 * self._number("embedding_length") + 3 * feed_forward)
        logits = self._vocabulary * (tokens if gpu else spec.parallel)
        return 4.0 * (vectors + logits) + 2.0 * tokens * self._context

    def _cache_type(self, which: str) -> float:
        name = option(
            self._spec,
            f"-ct{which} --cache-type-{which}",
            f"CACHE_TYPE_{which.upper()}",
        )
        return _CACHE_TYPES.get((name or "f16").lower(), 2.0)

    def _number(self, key: str) -> int:
        value = self._header.values.get(self._prefix + key, 0)
        if isinstance(value, tuple):
            value = max(value, default=0)
        return max(int(value), 0) if isinstance(value, int | float) else 0

    def _each_layer(self, key: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return one number for each layer; a header has one for all, or an array of them."""
        value = self._header.values.get(self._prefix + key)
        if isinstance(value, tuple):
            return tuple(max(int(number), 0) for number in value)
        if isinstance(value, int):
            return (max(value, 0),) * min(self.layers, 4096)
        return default


def _offloaded(spec: LocalModel, layers: int) -> float:
    """Return the share of a model that goes to the GPU. Not set means all (the default
    since 2025).
    """
    count = gpu_layers(spec)
    if count is None:
        return 1.0
    return min(1.0, count / (layers + 1))  # the output layer is one more
