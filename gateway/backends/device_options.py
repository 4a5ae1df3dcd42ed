"""The GPUs that the entry of a model in models.json asks for. Pure.

llama-server's own options for that (in ``extraArgs``, or as ``LLAMA_ARG_*`` in ``env``), and the
variables of drivers that hide GPUs from a program, which then counts from 0 what it sees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.backends.options import option, scattered
from gateway.models.local_model import LocalModel

#: Variable -> llama-server's prefix for the devices that it selects.
VISIBLE = {
    "CUDA_VISIBLE_DEVICES": "CUDA",
    "HIP_VISIBLE_DEVICES": "ROCm",
    "ROCR_VISIBLE_DEVICES": "ROCm",
    "GGML_VK_VISIBLE_DEVICES": "Vulkan",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice of devices by name (none: all of them), with their shares if the entry
    gives those.
    """

    devices: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()


def chosen_devices(
    spec: LocalModel, names: Sequence[str], environ: Mapping[str, str]
) -> Choice | None:
    """Return what the entry of ``spec`` chooses of the devices ``names``; ``None``: nothing.

    ``environ`` is the gateway's own, with which the names were found.
    """
    hidden = [variable for variable in VISIBLE if variable in spec.env]
    listed = option(spec, "-dev --device", "DEVICE")
    split = option(spec, "-ts --tensor-split", "TENSOR_SPLIT")
    mode = option(spec, "-sm --split-mode", "SPLIT_MODE")
    main = option(spec, "-mg --main-gpu", "MAIN_GPU")
    if not hidden and listed is None and split is None and mode is None and main is None:
        # Buffers that it names may be on any of them, and --device hides servers of --rpc.
        return Choice() if scattered(spec) else None
    seen = tuple(names)
    for variable in hidden:
        seen = _visible(seen, VISIBLE[variable], spec.env[variable], environ.get(variable))
    devices = seen
    if listed is not None:
        # By the numbers that the child will count with.
        by_name = {name: name for name in names} | _renumbered(seen)
        devices = tuple(by_name[n] for n in listed.split(",") if n in by_name)
    if mode == "none" and devices:
        number = int(main) if main is not None and main.isdigit() else 0
        return Choice((devices[min(number, len(devices) - 1)],))
    return Choice(devices, _numbers(split))


def _visible(names: tuple[str, ...], prefix: str, value: str, outer: str | None) -> tuple[str, ...]:
    """Return those of ``names`` that stay visible; all of them where it is not said by numbers."""
    numbers, counted = _ordinals(value), _ordinals(outer or "")
    if numbers is None:
        return names
    if counted:
        numbers = [counted.index(number) for number in numbers if number in counted]
    wanted = [f"{prefix}{number}" for number in numbers]
    return tuple(name for name in wanted if name in names)


def _ordinals(value: str) -> list[int] | None:
    texts = [text.strip() for text in value.split(",")]
    return [int(text) for text in texts] if all(text.isdigit() for text in texts) else None


def _renumbered(seen: Sequence[str]) -> dict[str, str]:
    """Return the name that the child will have for each device -> its name here."""
    counts: dict[str, int] = {}
    renumbered = {}
    for name in seen:
        prefix = name.rstrip("0123456789")
        number = counts.setdefault(prefix, 0)
        counts[prefix] += 1
        renumbered[f"{prefix}{number}" if name != prefix else name] = name
    return renumbered


def _numbers(text: str | None) -> tuple[float, ...]:
    """Return the proportions of ``--tensor-split``: separated by commas or slashes
    (common/arg.cpp).
    """
    try:
        return tuple(float(part) for part in re.split(r"[,/]+", text or "") if part)
    except ValueError:
        return ()
