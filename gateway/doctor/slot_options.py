"""Finds options of llama-server that defeat the saving of conversations, or keys' privacy in it.

The gateway sets what it needs, but what stands in an entry's ``extraArgs`` and ``env`` wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.backends.options import option
from gateway.models.local_model import LocalModel

_OFF: Final = frozenset({"off", "disabled", "false", "0"})  # of llama.cpp's common/arg.cpp


def slot_options(spec: LocalModel) -> Iterator[str]:
    """Yield one sentence for each. Only where conversations are saved (``cache.enabled``)."""
    if spec.embeddings or spec.reranking:
        return  # nothing of these is saved
    for name, what in (*_elsewhere(spec), *_unseen(spec)):
        yield f"{spec.name}: {name} {what}"


def _elsewhere(spec: LocalModel) -> Iterator[tuple[str, str]]:
    """Yield what takes conversations to where the gateway doesn't find them."""
    if option(spec, "--cache-ram -cram", "CACHE_RAM") not in (None, "0"):
        yield (
            "--cache-ram",
            "lets llama-server keep prompts in memory of its own, where they are not saved, and "
            "answer any key's prompt from them that begins alike, which that key may notice: "
            "leave it out (conversations are saved in cache.dir)",
        )
    if option(spec, "--slot-save-path", "") is not None:
        yield (
            "--slot-save-path",
            "has conversations saved elsewhere than in cache.dir, where the gateway looks for "
            "them: leave it out",
        )
    if option(spec, "--sleep-idle-seconds", "") not in (None, "-1"):
        yield (
            "--sleep-idle-seconds",
            "lets llama-server forget what is in its slots before it is saved: unload the model "
            "with `ttl` instead",
        )


def _unseen(spec: LocalModel) -> Iterator[tuple[str, str]]:
    """Yield what the gateway needs, and is switched off."""
    if not _is_on(spec, "slots", "ENDPOINT_SLOTS"):
        yield (
            "--no-slots",
            "keeps the gateway from seeing which slot a request is in, and when one is idle again: "
            "conversations are lost, or computed anew, that need not be",
        )
    if not _is_on(spec, "cache-prompt", "CACHE_PROMPT"):
        yield (
            "--no-cache-prompt",
            "has every conversation computed anew with each request, so that saving them is in "
            "vain: it is for a llama-server that cannot empty its slots",
        )


def _is_on(spec: LocalModel, flag: str, variable: str) -> bool:
    """Return whether a switch that is on by itself still is: the last flag wins."""
    value = spec.env.get(f"LLAMA_ARG_{variable}", "1")
    on = value.lower() not in _OFF and f"LLAMA_ARG_NO_{variable}" not in spec.env
    for argument in spec.extra_args:
        name = argument.replace("_", "-")
        if name in (f"--{flag}", f"--no-{flag}"):
            on = name == f"--{flag}"
    return on
