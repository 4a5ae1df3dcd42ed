"""Which deaths of a llama-server are for want of memory."""

import asyncio
import os
from pathlib import Path

import pytest

from gateway.backends import process
from gateway.backends.command import build_command, bundled_program
from gateway.backends.logring import LogRing
from gateway.backends.oom import gpu_ran_out, looks_like_oom
from tests.backends.memory.headers import SMOLLM2, spec_of, with_real_model


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
def test_llama_cpps_words_for_out_of_memory_are_known(line: str) -> None:
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
def test_memory_of_a_gpu_is_not_one_requests_alone(line: str, of_a_gpu: bool) -> None:
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
def test_other_deaths_are_not_out_of_memory(lines: list[str]) -> None:
    assert not looks_like_oom(1, lines)
    assert not looks_like_oom(-11, lines)
    assert not looks_like_oom(None, lines)


@with_real_model
async def test_a_real_child_without_enough_memory_says_so(tmp_path: Path) -> None:
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


def test_being_killed_is_what_the_oom_killer_does() -> None:
    assert looks_like_oom(-9, [])
    assert looks_like_oom(137, [])  # through a shell script
    assert not looks_like_oom(-15, [])
    assert not looks_like_oom(0, [])
