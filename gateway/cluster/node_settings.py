"""What a node is told when it joins. Plain values: Ray sends them from process to process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """The settings of one node. ``load_timeout`` in seconds.

    ``host``: the address at which gateways reach its llama-servers, and the only one that is
    listened on for them.
    """

    llama_server: str
    llm_storage: Path
    runtime_dir: Path
    host: str
    load_timeout: float = 300.0
