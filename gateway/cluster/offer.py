"""Files of one machine that another may fetch. Plain values: Ray sends them."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.secret import Secret


@dataclass(frozen=True, slots=True)
class Offer:
    """Where the ``files`` of a node are, by their path below ``llm_storage``, in the order in which
    they are asked for; and the key to them.
    """

    id: str
    node: str
    host: str
    port: int
    key: Secret
    files: tuple[str, ...]
