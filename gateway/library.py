"""The current models.json: watches the file, and knows the choices from it.

The file is read again when it has changed. A broken one changes nothing: the last good one stays in
use, and this is reported wherever somebody may look (lists, status, readiness, log). That holds for
a start, too, by a copy of the last good one: after a power cut nobody may be there to mend what was
edited before.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from gateway.choices import Choices
from gateway.errors import CatalogBroken, GatewayError
from gateway.models.catalog import EMPTY, Catalog, parse_catalog, parse_partly
from gateway.problems import InvalidFiles, Problem
from gateway.proxy.resolve import Resolver
from gateway.syntax import encoding_problem, is_javascript

_log = logging.getLogger(__name__)

_LOOK_EVERY_MS = 500
#: Milliseconds between two looks at the file even without events: network drives, and targets of
#: links, send none.
LOOK_ANYWAY_MS = 5000


class _Signature(NamedTuple):
    """A value that changes when a file is edited or replaced."""

    modified: int
    size: int
    inode: int


def read_catalog(file: Path) -> tuple[Catalog, _Signature]:
    """Read and validate ``file``. Raises :class:`InvalidFiles`. Blocks."""
    text, signature = _read(file)
    return parse_catalog(text, file=str(file)), signature


def read_partly(file: Path) -> tuple[Catalog, list[Problem]]:
    """Return what is right in ``file``, and every problem, for those who list them. Blocks."""
    try:
        text, _ = _read(file)
    except InvalidFiles as error:
        return EMPTY, list(error.problems)
    return parse_partly(text, file=str(file))


def _read(file: Path) -> tuple[str, _Signature]:
    if is_javascript(file):
        what = 'is JavaScript: models stand in a JSON file, {"model name": {"params": ...}}'
        raise InvalidFiles([Problem(str(file), "", None, what)])
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            text = stream.read().decode("utf-8-sig")
    except OSError as error:
        raise InvalidFiles(
            [Problem(str(file), "", None, f"cannot be read: {error.strerror}")]
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidFiles([Problem(str(file), "", None, encoding_problem(error))]) from None
    return text, _Signature(status.st_mtime_ns, status.st_size, status.st_ino)


def is_missing(file: Path) -> bool:
    """Return whether there is no such file, nor a link to one, in a folder that can be read."""
    try:
        file.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


class Library:
    """The current catalog, its names, and what was chosen from it.

    ``changed`` is called with every new catalog. ``signature`` is that of the file ``catalog``
    comes from; ``None``: there was no good one yet.
    """

    def __init__(
        self,
        file: Path,
        catalog: Catalog,
        signature: _Signature | None,
        *,
        shipped: bool = False,
        copy: Path | None = None,
    ) -> None:
        """``shipped``: the file is the demonstration's, which came with the program. ``copy``:
        where one of the last good file is kept.
        """
        self.file = file
        self._copy = copy
        self.shipped = shipped
        self.catalog = catalog
        self.resolver = Resolver(catalog)
        self.choices = Choices()
        #: Why the present file isn't in use, with paths: for administrators.
        self.broken: str | None = None
        self.changed: Callable[[Catalog], None] = lambda catalog: None
        self._good = self._seen = signature
        self._lock = asyncio.Lock()
        self._listeners: set[Callable[[], None]] = set()

    @classmethod
    def open(cls, file: Path, *, shipped: bool = False, copy: Path | None = None) -> Library:
        """Read ``file``; if it doesn't exist yet there are no models. Blocks: for the start.

        If it is broken, ``copy`` is used, if that is a good one. Raises :class:`InvalidFiles`.
        """
        if is_missing(file):
            return cls(file, EMPTY, None, copy=copy)
        try:
            catalog, signature = read_catalog(file)
        except InvalidFiles as error:
            return cls._of_copy(file, copy, error)
        for warning in catalog.warnings:
            _log.warning("%s", warning)
        return cls(file, catalog, signature, shipped=shipped, copy=None if shipped else copy)

    @classmethod
    def _of_copy(cls, file: Path, copy: Path | None, error: InvalidFiles) -> Library:
        seen = _signature_of(file)
        try:
            if copy is None:
                raise error
            catalog, signature = read_catalog(copy)
        except InvalidFiles:
            raise error from None
        library = cls(file, catalog, signature, copy=copy)
        library._seen, library.broken = seen, str(error)
        _log.error("%s: %s", library.note, error)
        _log.error("the last good one is from %s: mend %s, no restart is needed", copy, file)
        return library

    @property
    def created(self) -> int:
        """When the models last changed, in seconds since 1970."""
        return self._good.modified // 10**9 if self._good else 0

    @property
    def note(self) -> str | None:
        """A note that the file is broken, for everybody: without its contents and its place."""
        if self.broken is None:
            return None
        if self._good is None:
            return "models.json is broken: there are no models until it is mended"
        return "models.json is broken: the last good one stays in use until it is mended"

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` when the file breaks or is repaired; return how to end that."""
        self._listeners.add(callback)
        return lambda: self._listeners.discard(callback)

    async def refresh(self) -> None:
        """Read the file if it has changed."""
        async with self._lock:
            signature = await asyncio.to_thread(_signature_of, self.file)
            if signature == self._seen:
                return
            try:  # cancelled (a client left who asked for it), it is still to be read
                catalog, read = await asyncio.to_thread(read_catalog, self.file)
            except InvalidFiles as error:
                self._seen = signature
                self._set_broken(str(error))
                _log.error("%s: %s", self.note, error)
                return
            self._good = self._seen = read
            await asyncio.to_thread(self._keep_copy)
            if self.broken is not None:
                _log.info("models.json is in order again")
                self._set_broken(None)
            if catalog == self.catalog:
                return
            _log.info("models.json has changed: %s", ", ".join(catalog.names) or "no models")
            self._take(catalog)

    def _keep_copy(self) -> None:
        """Keep a copy of the file if it is that which is in use, and not kept already. Blocks."""
        if self._copy is None:
            return
        try:
            text = self.file.read_bytes()
            before = self._copy.read_bytes() if self._copy.exists() else b""
            if text != before and _signature_of(self.file) == self._good:
                from gateway.models.editing import write  # it waits for the disk

                write(self._copy, text.decode(), before=before, keep=False)
        except FileNotFoundError:
            return
        except (OSError, GatewayError) as error:
            _log.warning("no copy of models.json can be kept in %s: %s", self._copy, error)

    def _set_broken(self, reason: str | None) -> None:
        self.broken = reason
        for listener in tuple(self._listeners):
            listener()

    async def watch(self) -> None:
        """Read the file whenever it changes, until cancelled.

        The folder is watched, not the file: editors and deployments replace files.
        """
        from watchfiles import watch  # takes a while to import: after the start

        def ours(_change: object, path: str) -> bool:
            return Path(path).name == self.file.name

        # Nothing reports changes of what doesn't exist.
        while not await asyncio.to_thread(self.file.parent.is_dir):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_ANYWAY_MS / 1000)
        await self.refresh()  # it may have come meanwhile
        await asyncio.to_thread(self._keep_copy)
        # Its thread looks for news every `step`; 20 times a second, as it does unasked, is CPU for
        # nothing on a machine that is there for other work.
        ended = threading.Event()
        changes = watch(
            self.file.parent,
            watch_filter=ours,
            recursive=False,
            step=_LOOK_EVERY_MS,
            rust_timeout=LOOK_ANYWAY_MS,
            yield_on_timeout=True,
            stop_event=ended,
            raise_interrupt=False,
        )
        # A thread of its own, which waits all the time: asyncio's are few, and are for what ends.
        # `awatch` would do the same by all of anyio, which nothing else here needs.
        thread = ThreadPoolExecutor(1, thread_name_prefix="watch models.json")
        loop = asyncio.get_running_loop()
        try:
            while await loop.run_in_executor(thread, next, changes, None) is not None:
                await self.refresh()
        finally:
            ended.set()
            thread.shutdown(wait=False)

    def check(self) -> None:
        """Raise :class:`CatalogBroken` if the file is broken, and there never was a good one."""
        if self.broken is not None and self._good is None:
            raise CatalogBroken(f"Failed to load models: {self.note}.", detail=self.broken)

    def _take(self, catalog: Catalog) -> None:
        for warning in catalog.warnings:
            _log.warning("%s", warning)
        self.catalog = catalog
        self.resolver = Resolver(catalog)
        self.choices.keep_models(catalog)
        self.changed(catalog)


def _signature_of(file: Path) -> _Signature | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return _Signature(status.st_mtime_ns, status.st_size, status.st_ino)
