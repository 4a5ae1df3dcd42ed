"""Detects a llama-server that uses the CPU though it was meant to use a GPU. Pure."""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import LoadFailed
from gateway.models.local_model import LocalModel

#: The ``code`` of the error when models.json asks for a GPU and there is none.
GPU_REQUIRED: Final = "gpu_required"

#: Messages of llama.cpp (ggml-cuda.cu for CUDA, ROCm and MUSA; common/arg.cpp, and common.cpp
#: before 2024; ggml-vulkan.cpp; src/llama-model.cpp). The last one is logged at INFO, which builds
#: from 2026 don't show unless asked to: for them ``--list-devices`` tells, before the start.
_FELL_BACK = re.compile(
    r"""
      failed\ to\ initialize\ (CUDA|ROCm|MUSA)\b
    | no\ usable\ GPU\ found
    | not\ compiled\ with\ GPU\ offload\ support
    | compiled\ without\ (support\ for\ )?GPU\ (offload|support)
    | ggml_vulkan:\ No\ devices\ found
    | offloaded\ 0/\d+\ layers\ to\ GPU
    """,
    re.VERBOSE,
)


def says_cpu_only(line: str) -> bool:
    """Return whether ``line`` of a llama-server's log says that no GPU is used."""
    return _FELL_BACK.search(line) is not None


def gpu_required(spec: LocalModel, why: str) -> LoadFailed:
    """Return the error for a model with ``requireGpu`` that would run on the CPU."""
    return LoadFailed(
        f"{spec.name!r} is not loaded: its entry has requireGpu, and there is no GPU for it.",
        detail=f"{why[0].upper()}{why[1:]}" + ("" if why.endswith(".") else "."),
        code=GPU_REQUIRED,
    )
