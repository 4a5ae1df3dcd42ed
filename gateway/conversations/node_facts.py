"""What is known of what is saved on a node: a folder of this machine, with a file for each.

Everything here blocks, and may be called from any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from gateway.backends.slot_files import NODES
from gateway.conversations.fact_files import FACTS, FactFiles, read_facts
from gateway.conversations.files import is_ours
from gateway.conversations.index import Saved
from gateway.conversations.locked_folder import LockedFolder, Unusable
from gateway.names import parse_node

_log = logging.getLogger(__name__)


class NodeFacts:
    """That of ``node``, below the ``cache`` of one gateway."""

    def __init__(self, cache: Path, node: str) -> None:
        self.node = node
        self.folder = cache / NODES / node
        self._locked = LockedFolder(self.folder, is_ours)
        self._files = FactFiles(self.folder)
        self._told = False
        self.keep, self.note = self._files.keep, self._files.note
        self.close, self.is_held = self._locked.close, self._locked.is_held

    def open(self) -> list[Saved]:
        """Take the folder, remove half files, and return what is saved. Raises
        :class:`Unusable`.
        """
        self._locked.take()
        found = []
        try:
            for file in self.folder.iterdir():
                if is_ours(file.name):
                    saved = read_facts(file) if file.name.endswith(FACTS) else None
                    if saved is not None:
                        found.append(saved)
                    else:
                        file.unlink()
        except OSError as error:
            self.close()
            raise Unusable(f"{self.folder} cannot be used: {error.strerror}") from None
        self._files.found(found)
        return found

    def remove(self, names: Iterable[str]) -> None:
        """Know nothing of those any more."""
        for name in names:
            try:
                self._files.remove(name)
            except OSError as error:
                if not self._told:
                    self._told = True
                    _log.warning("a saved conversation cannot be removed: %s", error)


def nodes_in(cache: Path) -> list[NodeFacts]:
    """Return those that there are."""
    try:
        names = sorted(each.name for each in (cache / NODES).iterdir() if each.is_dir())
    except OSError:
        return []
    return [NodeFacts(cache, name) for name in names if _is_node(name)]


def _is_node(name: str) -> bool:
    try:
        return parse_node(name) == name
    except ValueError:
        return False
