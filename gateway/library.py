"""models.json as it stands on disk, and what was chosen from it.

The file is read again when it has changed. A broken one changes nothing: the last good one goes
on serving, and the reason is kept for ``GET /models`` and the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gateway.catalog import Catalog, parse_catalog
from gateway.errors import CatalogBroken
from gateway.proxy.resolve import Active, Resolver
from gateway.validation import InvalidFiles, Problem

_log = logging.getLogger(__name__)

_LOOK_EVERY_MS = 500


class _Signature(NamedTuple):
    """What changes when a file is edited or replaced."""

    modified: int
    size: int
    inode: int


def read_catalog(file: Path) -> tuple[Catalog, _Signature]:
    """Read and validate ``file``. Raises :class:`InvalidFiles`. Blocks."""
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            text = stream.read().decode("utf-8-sig")
    except OSError as error:
        raise InvalidFiles(
            [Problem(str(file), "", None, f"cannot be read: {error.strerror}")]
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidFiles([Problem(str(file), "", None, f"is not UTF-8: {error}")]) from None
    signature = _Signature(status.st_mtime_ns, status.st_size, status.st_ino)
    return parse_catalog(text, file=str(file)), signature


class Library:
    """The current catalog, its names, and the active model.

    ``changed`` is called with every new catalog.
    """

    def __init__(self, file: Path, catalog: Catalog, signature: _Signature | None) -> None:
        self.file = file
        self.catalog = catalog
        self.resolver = Resolver(catalog)
        self.active: Active | None = None
        self.broken: str | None = None
        self.changed: Callable[[Catalog], None] = lambda catalog: None
        self._signature = signature
        self._lock = asyncio.Lock()

    @classmethod
    def open(cls, file: Path) -> Library:
        """Read ``file``. Raises :class:`InvalidFiles`. Blocks: for the start."""
        catalog, signature = read_catalog(file)
        for warning in catalog.warnings:
            _log.warning("%s", warning)
        return cls(file, catalog, signature)

    @property
    def created(self) -> int:
        """When the models were last changed, in seconds since 1970."""
        return self._signature.modified // 10**9 if self._signature else 0

    async def refresh(self) -> None:
        """Take over the file if it has changed."""
        async with self._lock:
            signature = await asyncio.to_thread(_signature_of, self.file)
            if signature == self._signature:
                return
            try:  # cancelled (a client left who asked for it), it is still to be read
                catalog, self._signature = await asyncio.to_thread(read_catalog, self.file)
            except InvalidFiles as error:
                self._signature = signature
                self.broken = str(error)
                _log.error("models.json is broken, the last good one stays in use: %s", error)
                return
            self.broken = None
            if catalog == self.catalog:
                return
            _log.info("models.json has changed: %s", ", ".join(catalog.names) or "no models")
            self._take(catalog)

    async def watch(self) -> None:
        """Take over changes of the file as they happen, until cancelled.

        The folder is watched, not the file: editors and deployments replace files.
        """
        from watchfiles import awatch  # takes a while to import: after the start

        def ours(_change: object, path: str) -> bool:
            return Path(path).name == self.file.name

        # Its thread looks for news every `step`; 20 times a second, as it does unasked, is CPU for
        # nothing on a machine that is there for other work.
        changes = awatch(self.file.parent, watch_filter=ours, recursive=False, step=_LOOK_EVERY_MS)
        async for _ in changes:
            await self.refresh()

    def check(self) -> None:
        """Raise :class:`CatalogBroken` while the file on disk is broken."""
        if self.broken is not None:
            raise CatalogBroken(f"Failed to load models: {self.broken}")

    def _take(self, catalog: Catalog) -> None:
        for warning in catalog.warnings:
            _log.warning("%s", warning)
        self.catalog = catalog
        self.resolver = Resolver(catalog)
        if (active := self.active) is not None:
            spec = catalog.models.get(active.model)
            if spec is None:
                self.active = None
            elif active.personality not in spec.personalities:
                self.active = Active(active.model)
        self.changed(catalog)


def _signature_of(file: Path) -> _Signature | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return _Signature(status.st_mtime_ns, status.st_size, status.st_ino)
