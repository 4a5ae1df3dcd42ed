"""The settings of a model as its llama-server will see them. Pure.

``extraArgs`` come last on its command line and win; variables lose against any flag.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from gateway.models.local_model import LocalModel

_LAYERS: Final = "-ngl --gpu-layers --n-gpu-layers"


def gpu_layers(spec: LocalModel) -> int | None:
    """Return how many layers are to go to GPUs; ``None``: as llama-server decides, or all."""
    if option(spec, "-dev --device", "DEVICE") == "none":
        return 0
    if option(spec, _LAYERS, "N_GPU_LAYERS") in ("auto", "all"):
        return None
    count = number(spec, spec.params.gpu_layers, _LAYERS, "N_GPU_LAYERS")
    return None if count is None or count < 0 else count


def context_is_open(spec: LocalModel) -> bool:
    """Return whether nothing says how much context there is to be, so that it may be chosen."""
    texts = (*spec.extra_args, *spec.env)
    if any(re.search(r"context_length|unified.per.slot", text, re.IGNORECASE) for text in texts):
        return False
    said = spec.params.ctx_size is not None or option(spec, "-c --ctx-size", "CTX_SIZE") is not None
    return not (said or fits_by_itself(spec))


def layers_are_open(spec: LocalModel) -> bool:
    """Return whether nothing says which parts of a model go to GPUs, so that it may be chosen."""
    said = spec.params.gpu_layers is not None or option(spec, _LAYERS, "N_GPU_LAYERS") is not None
    elsewhere = option(spec, "-dev --device", "DEVICE") == "none" or scattered(spec)
    return not (said or elsewhere or fits_by_itself(spec))


def fits_by_itself(spec: LocalModel) -> bool:
    """Return whether ``extraArgs`` or ``env`` say how llama-server is to fit a model in
    (``--fit``).
    """
    return any(
        option(spec, flags, variable) is not None
        for flags, variable in (
            ("-fit --fit", "FIT"),
            ("-fitt --fit-target", "FIT_TARGET"),
            ("-fitc --fit-ctx", "FIT_CTX"),
        )
    )


def mapped(spec: LocalModel) -> bool:
    """Return whether weights in RAM are pages of the file, which the kernel lets go of and reads
    again.

    Such a model also runs, more slowly, with less memory than its weights take.
    """
    if spec.params.no_mmap or spec.params.mlock:
        return False
    mode = option(spec, "-lm --load-mode", "LOAD_MODE")
    named = {argument.replace("_", "-") for argument in spec.extra_args}
    others = {"--no-mmap", "--mlock", "-dio", "--direct-io"}
    switched = ("LLAMA_ARG_NO_MMAP", "LLAMA_ARG_MLOCK", "LLAMA_ARG_DIO")
    off = spec.env.get("LLAMA_ARG_MMAP", "1").lower() in ("0", "off", "false", "disabled")
    return not (named & others or off or any(name in spec.env for name in switched)) and (
        mode is None or mode == "mmap"
    )


#: Options that put parts of a model elsewhere than its layers, or let llama-server choose.
_OTHER_PLACES: Final = (
    ("-ot --override-tensor", "OVERRIDE_TENSOR"),
    ("-cmoe --cpu-moe", "CPU_MOE"),
    ("-ncmoe --n-cpu-moe", "N_CPU_MOE"),
    ("--rpc", "RPC"),
)


def scattered(spec: LocalModel) -> bool:
    """Return whether ``extraArgs`` or ``env`` spread a model in ways that nobody counts here."""
    for flags, variable in _OTHER_PLACES:
        if f"LLAMA_ARG_{variable}" in spec.env:
            return True
        names = flags.split()
        if any(a.partition("=")[0].replace("_", "-") in names for a in spec.extra_args):
            return True
    return option(spec, "-fit --fit", "FIT") == "on"


def number(spec: LocalModel, own: int | None, flags: str, variable: str) -> int | None:
    """Return a setting as llama-server will have it: the last flag wins, and any flag over a
    variable.

    ``own`` is what the key of models.json says, which comes before ``extraArgs``.
    """
    text = option(spec, flags, variable if own is None else "")
    try:
        return int(text) if text is not None else own
    except ValueError:
        return own


def option(spec: LocalModel, flags: str, variable: str) -> str | None:
    """Return the value of an option in ``extraArgs``, else in ``env`` as ``LLAMA_ARG_variable``."""
    names = flags.split()
    found = spec.env.get(f"LLAMA_ARG_{variable}") if variable else None
    for argument, following in pairwise((*spec.extra_args, "")):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") in names:
            found = value if equals else following or None
    return found


def shares_context(spec: LocalModel) -> bool:
    """Return whether the slots share one context, and each may have all of it."""
    shared = spec.env.get("LLAMA_ARG_KV_UNIFIED", "").lower() in ("1", "true", "on", "enabled")
    for argument in spec.extra_args:
        if argument in ("--kv-unified", "-kvu"):
            shared = True
        elif argument in ("--no-kv-unified", "-no-kvu"):
            shared = False
    return shared
