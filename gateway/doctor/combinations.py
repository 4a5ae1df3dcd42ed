"""Finds keys in an entry of models.json that don't go together.

Each key alone is right, and a load succeeds or says what is wrong; so these are warnings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.errors import GatewayError
from gateway.models.gguf_header import Header, is_reader, read_header
from gateway.models.local_model import LocalModel
from gateway.models.paths import resolve_model_path
from gateway.proxy.ability import EMBEDDINGS, MEDIA, RERANKING, TOOLS, is_set, lacks

_POOLING = re.compile(r"--pooling|LLAMA_ARG_POOLING")
_RANK = 4  # llama.cpp, enum llama_pooling_type


def combinations(spec: LocalModel, llm_storage: Path) -> Iterator[str]:
    """Yield one sentence for each. Blocking."""
    try:
        file = resolve_model_path(spec.params.model or "", llm_storage)
        if not file.is_file():
            return
        header = read_header(file)
    except (OSError, ValueError, GatewayError):
        return  # that is a problem of its own
    missing = lacks(spec)
    for key, what in (
        *_tools(spec, header, missing),
        *_tasks(spec, header, missing),
        *_projector(file, llm_storage, missing),
    ):
        yield f"{spec.name}.{key}: {what}"


def _tools(
    spec: LocalModel, header: Header, missing: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    own = str(header.values.get("tokenizer.chat_template", ""))
    if TOOLS in missing and re.search(r"\btools\b", own):
        yield (
            "template",
            f"{spec.template!r} switches tools off: requests with tools are refused (400), while "
            "the model's own template, used without this key, takes them",
        )


def _tasks(
    spec: LocalModel, header: Header, missing: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    architecture = header.values.get("general.architecture")
    pooling = header.values.get(f"{architecture}.pooling_type")
    reader, chosen = is_reader(header.values), is_set(spec, _POOLING)
    if reader and EMBEDDINGS in missing and RERANKING in missing:
        yield (
            "embeddings",
            f"the file is a model for embeddings or rerank ({architecture}), which cannot chat: "
            'it needs "embeddings": true or "reranking": true to be loaded',
        )
    if spec.embeddings and spec.reranking:
        yield "embeddings", "has no effect beside reranking: /v1/embeddings would give scores"
    elif spec.embeddings and pooling is None and not chosen:
        yield (
            "embeddings",
            "the file names no pooling, so /v1/embeddings is refused (400) until extraArgs has it, "
            'like "extraArgs": ["--pooling", "mean"]: which one is right, its maker says',
        )
    if spec.reranking and pooling != _RANK and not reader and not chosen:
        yield "reranking", "the file is none for rerank (by its pooling): its scores mean nothing"


def _projector(
    file: Path, llm_storage: Path, missing: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    if MEDIA not in missing or file.parent == llm_storage.expanduser():
        return  # a folder of many models: whose it is, is anybody's guess
    if found := sorted(file.parent.glob("*mmproj*.gguf")):
        yield (
            "mmproj",
            f"is missing, so requests with pictures or sounds are refused (400): beside the model "
            f"lies {found[0].name}, a projector for them",
        )
