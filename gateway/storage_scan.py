"""Scans ``llm_storage`` for ``GET /admin/storage``, as ``llm-gateway models scan`` does."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from gateway.config.settings import Settings
from gateway.entries import Entries
from gateway.errors import NotFound
from gateway.models.catalog import Catalog
from gateway.tasks import spawn


class StorageScan:
    """A scanner of ``llm_storage`` that scans once at a time: concurrent requests share the
    result.
    """

    def __init__(self, settings: Settings, entries: Entries) -> None:
        self._settings = settings
        self._entries = entries
        self._running: tuple[Catalog, asyncio.Task[bytes | OSError]] | None = None

    async def look(self, catalog: Catalog) -> bytes:
        """Return the answer as JSON, without the models of ``catalog``.

        Raises :class:`NotFound` where there is no such folder.
        """
        while self._running is not None and self._running[0] is not catalog:
            await asyncio.wait((self._running[1],))  # models.json has changed since it began
        if self._running is None:
            task = spawn(self._scan(catalog), name="look through llm_storage")
            self._running = (catalog, task)
        found = await asyncio.shield(self._running[1])
        if isinstance(found, OSError):
            folder = self._settings.llm_storage
            raise NotFound(
                f"llm_storage cannot be looked through: {found.strerror}",
                detail=f"The folder is {folder}.",
                code="no_storage",
            )
        return found

    async def _scan(self, catalog: Catalog) -> bytes | OSError:
        try:
            return await asyncio.to_thread(_scanned, self._settings, catalog, self._entries)
        except OSError as error:
            return error
        finally:
            self._running = None


def _scanned(settings: Settings, catalog: Catalog, entries: Entries) -> bytes:
    from gateway.backends.scan import scan_storage  # few ask for it

    found: list[dict[str, Any]] = scan_storage(settings, catalog).as_json()
    for one in found:
        entry = one["entry"]
        one["refused"] = entries.why_not(one["name"], entry) if entry is not None else None
    return orjson.dumps(found)
