"""Whether a model only reads text, for embeddings or rerank, and can't write any, by its file."""

from __future__ import annotations

from pathlib import Path

from gateway.backends.command import resolve_model_path
from gateway.backends.gguf_header import BadGguf, Header, read_header
from gateway.catalog import ModelSpec
from gateway.errors import GatewayError

#: Architectures without a memory of what came before (llama.cpp, ``llama_model::create_memory``).
#: A llama-server that isn't told what they are for ends with a signal when it tries to write.
_ENCODERS = frozenset(
    """bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert
    gemma-embedding""".split()
)


def is_reader(header: Header) -> bool:
    """Whether the model that ``header`` belongs to can't continue a text."""
    architecture = header.values.get("general.architecture")
    causal = header.values.get(f"{architecture}.attention.causal")
    return architecture in _ENCODERS or causal is False


def only_reads(spec: ModelSpec, llm_storage: Path) -> bool:
    """The same of the model's file; False too where that doesn't tell. Blocking."""
    try:
        return is_reader(read_header(resolve_model_path(spec.params.model or "", llm_storage)))
    except (BadGguf, OSError, GatewayError):
        return False  # what is the matter with it will show when it is loaded
