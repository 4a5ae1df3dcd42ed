"""Where llama-servers of a node write what is in their slots: a folder for each gateway."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gateway.backends.served import Served
from gateway.private_files import make_folder
from gateway.upstream import Upstream


class SlotFolder:
    """That of one gateway, which alone decides what is saved: see
    :class:`gateway.backends.backend.SlotSaves`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def folder(self) -> Path | None:
        """The folder, which nobody else can look into; None if it can't be written to. Blocks."""
        try:
            make_folder(self.path)
        except OSError:
            return None
        return self.path

    def arrived(self, backend: Served) -> None:
        """Leave that to the gateway."""

    async def leave(self, backend: Served, pool: Upstream) -> None:
        """Leave that to the gateway."""


class SlotFolders:
    """Those below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, gateway: str) -> SlotFolder:
        """Return that of a gateway, whose name may be anything."""
        return SlotFolder(self._folder / hashlib.sha256(gateway.encode()).hexdigest()[:32])
