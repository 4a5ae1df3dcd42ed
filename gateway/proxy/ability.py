"""The abilities that a local model lacks by its entry in models.json: no process is started. Pure.

Each lack comes with the sentence that its client gets, which ends with what would have to be
changed in models.json. What ``extraArgs`` or ``env`` may have switched on after all, or
``meta.capabilities`` says, is left to llama-server to refuse (see :mod:`gateway.proxy.failure`),
and so is everything of models elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from gateway.models.local_model import LocalModel
from gateway.models.model import Model

#: Abilities that a request may need of its model.
TOOLS = "tools"
MEDIA = "media"
EMBEDDINGS = "embeddings"
RERANKING = "reranking"
GENERATION = "generation"
POOLING = "pooling"
INFILL = "infill"
DECISIONS = "decisions"
METRICS = "metrics"
SLOTS = "slots"
PROPS = "props"

NOTHING: Mapping[str, str] = MappingProxyType({})

#: Ability -> what models with it have in their ``meta.capabilities``.
_CALLED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        TOOLS: ("tools",),
        MEDIA: ("vision", "audio"),
        EMBEDDINGS: ("embeddings",),
        RERANKING: ("rerank",),
        GENERATION: ("chat", "completion"),
    }
)

#: Ability -> the flags and variables of llama-server that may give it (llama.cpp's README).
_SWITCHES: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        TOOLS: re.compile(r"--jinja|--chat-template-file|LLAMA_ARG_(JINJA|CHAT_TEMPLATE_FILE)"),
        MEDIA: re.compile(
            r"--mmproj(-url|-auto)?|-mmu?|LLAMA_ARG_MMPROJ(_URL|_AUTO)?", re.IGNORECASE
        ),
        EMBEDDINGS: re.compile(
            r"--embeddings?|--rerank(ing)?|LLAMA_ARG_(EMBEDDINGS|RERANKING)", re.IGNORECASE
        ),
        RERANKING: re.compile(
            r"--rerank(ing)?|--pooling|LLAMA_ARG_(RERANKING|POOLING)", re.IGNORECASE
        ),
    }
)
_WHY: Mapping[str, str] = MappingProxyType(
    {
        TOOLS: "cannot be given tools: `template` in its entry of models.json switches them off; "
        "without it the model's own template is used",
        MEDIA: "takes no such media: its entry in models.json needs `mmproj`, the file of a "
        "projector for them",
        EMBEDDINGS: 'gives no embeddings: its entry in models.json needs "embeddings": true',
        POOLING: "gives no embeddings of whole texts, as its file names no pooling: its entry in "
        'models.json needs "extraArgs": ["--pooling", "mean"], or which one its maker says',
        RERANKING: 'does not rerank: its entry in models.json needs "reranking": true',
        GENERATION: "only reads text, for embeddings or rerank, and cannot write any: for chats "
        "and completions name another model",
        INFILL: "fills no gaps: it was not trained to (it has no tokens for it)",
        DECISIONS: "is no decision model",
        METRICS: "has no metrics of its own: `metrics.backends: true` in gateway.yaml gives them "
        'to every model, "extraArgs": ["--metrics"] in its entry in models.json to this one',
        SLOTS: 'does not show its slots: its entry in models.json needs "extraArgs": ["--slots"]',
        PROPS: "does not have its settings changed: its entry in models.json needs "
        '"extraArgs": ["--props"]',
    }
)


def lacks(spec: Model) -> Mapping[str, str]:
    """Return what ``spec`` can't do -> why, in one sentence for clients."""
    if not isinstance(spec, LocalModel):
        return NOTHING
    missing = {
        TOOLS: bool(spec.template),
        MEDIA: spec.mmproj is None,
        EMBEDDINGS: not spec.embeddings and not spec.reranking,
        RERANKING: not spec.reranking,
    }
    return MappingProxyType(
        {
            ability: sentence(ability, spec.name)
            for ability, switch in _SWITCHES.items()
            if missing[ability] and not is_set(spec, switch) and not is_claimed(spec, ability)
        }
    )


def is_claimed(spec: Model, ability: str) -> bool:
    """Return whether the entry itself says, by its ``meta``, that the model has an ability."""
    return any(map(spec.meta.can, _CALLED[ability]))


def sentence(ability: str, model: str) -> str:
    """Return that ``model`` lacks ``ability``, and what to change."""
    return f"the model {model!r} {_WHY[ability]}"


def is_set(spec: LocalModel, switch: re.Pattern[str]) -> bool:
    """Return whether ``extraArgs`` has such a flag, or ``env`` such a variable."""
    flags = (argument.partition("=")[0].replace("_", "-") for argument in spec.extra_args)
    return any(map(switch.fullmatch, (*flags, *spec.env)))
