"""The nodes that a gateway has known, in a file: those that are off are listed after a restart."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.private_files import write_private

if TYPE_CHECKING:
    from gateway.cluster.known_node import KnownNode

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """A node that is known: its last life, its address, and the version that it has run."""

    boot: str
    host: str
    version: str


def known(nodes: Mapping[str, KnownNode], boots: Mapping[str, str]) -> dict[str, Known]:
    """Return what is to be remembered of ``nodes``, with their last lives."""
    return {name: Known(boots[name], one.host, one.version) for name, one in nodes.items()}


class Remembered:
    """The nodes in ``file``."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept: dict[str, Known] = {}

    def load(self) -> Mapping[str, Known]:
        """Return those that are in the file; none if it can't be read. Blocks."""
        try:
            told = json.loads(self._file.read_bytes())
            self._kept = {str(name): Known(**known) for name, known in told.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError) as error:
            _log.warning("which nodes there were is not known: %s: %s", self._file, error)
        return self._kept

    async def keep(self, nodes: Mapping[str, Known]) -> None:
        """Remember these, and no others. What can't be written is tried again with the next."""
        if nodes == self._kept:
            return
        text = json.dumps({name: asdict(known) for name, known in sorted(nodes.items())})
        try:
            await asyncio.to_thread(write_private, self._file, text)
        except OSError as error:
            _log.warning("which nodes there are cannot be kept: %s", error)
        else:
            self._kept = dict(nodes)
