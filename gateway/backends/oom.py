"""Tells whether a child died from lack of memory, by its status and its last lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Messages of llama.cpp, its backends, the C++ runtime and drivers when they get no memory.
_OUT_OF_MEMORY = re.compile(
    r"""
      out\ of\ memory                        # "cudaMalloc failed: ...", "CUDA error: ...", ROCm
    | OUT_OF_(DEVICE_|HOST_)?MEMORY          # CUDA's and Vulkan's codes, SYCL's UR_RESULT_ERROR_
    | UR_RESULT_ERROR_OUT_OF_RESOURCES       # SYCL on Intel
    | OutOf(Device|Host|Pool)Memory          # Vulkan: "vk::Device::allocateMemory: ..."
    | Device\ memory\ allocation\ of\ size   # Vulkan: "ggml_vulkan: ... N failed."
    | Insufficient\ Memory                   # Metal: "kIOGPUCommandBufferCallbackError..."
    | CUBLAS_STATUS_ALLOC_FAILED
    | (failed|unable)\ to\ allocate          # "... CUDA0 buffer of size N", "... backend buffer"
    | can't\ allocate\ \d+\ Bytes\ of\ memory  # SYCL
    | Cannot\ allocate\ memory               # strerror(ENOMEM): "mmap failed: ..."
    | std::bad_alloc | \bMemoryError\b       # the second: the bundled server, from Python
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: Those of these messages that are about a GPU, whose memory another program may have taken.
_OF_A_GPU = re.compile(
    r"""
      (CUDA|HIP|ROCm)\ error:\ out\ of\ memory | (cuda|hip)Malloc\w*\ failed
    | CUBLAS_STATUS_ALLOC_FAILED
    | OUT_OF_DEVICE_MEMORY | OutOfDeviceMemory | Device\ memory\ allocation\ of\ size
    | UR_RESULT_ERROR_OUT_OF_RESOURCES
    | Insufficient\ Memory
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: Similar lines after which llama.cpp goes on: it could not lock or pin memory, or, for lines
#: before that, tries again with less.
_HARMLESS = re.compile(r"mlock|pinned", re.IGNORECASE)
_SECOND_TRY = re.compile(r"allocation failed, retrying", re.IGNORECASE)
#: SIGKILL as subprocess has it, and as a wrapper's shell reports it (128 + 9).
_KILLED = (-9, 137)


def gpu_ran_out(last_lines: Iterable[str]) -> bool:
    """Return whether a child that was ready ended for want of a GPU's memory, by its log's last
    lines.
    """
    return any(_OF_A_GPU.search(line) and not _HARMLESS.search(line) for line in last_lines)


def looks_like_oom(returncode: int | None, lines: Iterable[str]) -> bool:
    """Return whether a child that ended by itself did so for lack of memory, from its log's last
    lines.

    SIGKILL counts: nobody but the system (OOM killer, systemd-oomd, macOS) sends one to a child
    that the gateway has not asked to stop, or else a person, whom one more start doesn't hurt.
    """
    if returncode in _KILLED:
        return True
    found = False
    for line in lines:
        if _SECOND_TRY.search(line):
            found = False
        elif _OUT_OF_MEMORY.search(line) and not _HARMLESS.search(line):
            found = True
    return found
