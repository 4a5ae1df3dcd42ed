"""The settings of one node, which come from its own configuration. Ray sends them to its actor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """The settings of one node. Times in seconds.

    ``cache_dir``: where its llama-servers write what is in their slots.
    ``host``: the address at which gateways reach its llama-servers, and the only one that is
    listened on for them. ``data_dir``: where it notes its children, and what models took of its
    memory. ``dismissal``: the socket at which it is told that the node was removed
    (:mod:`.dismissal`). ``orphan_after``: the llama-servers of a gateway that has not been heard of
    for so long are ended.
    """

    llama_server: str
    llm_storage: Path
    data_dir: Path
    cache_dir: Path
    host: str
    load_timeout: float = 300.0
    dismissal: Path | None = None
    orphan_after: float = 120.0
