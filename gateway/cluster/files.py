"""What a machine's ``llm_storage`` has, what of a model is missing there, and what may be given
away.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from gateway.backends.command import model_files
from gateway.errors import LoadFailed
from gateway.models.hub import safe_path
from gateway.models.local_model import LocalModel
from gateway.models.paths import SPLIT, resolve_model_path, split_parts
from gateway.models.storage import gguf_files
from gateway.tasks import cancel_and_wait, spawn_lasting

_log = logging.getLogger(__name__)

#: Milliseconds between two looks for news, and until it is looked anyway: a network drive has none.
_LOOK_EVERY_MS: Final = 250
_LOOK_ANYWAY_MS: Final = 60_000
#: The parts of a split model that are looked for, whatever number its name has.
_MOST_PARTS: Final = 1000


class StorageFiles:
    """The GGUF files below ``storage``. ``changed`` is called after every change of :attr:`files`.

    Nothing is read of a file: a folder with a thousand of them is listed within milliseconds.
    """

    def __init__(self, storage: Path, changed: Callable[[], None]) -> None:
        self._storage = storage.expanduser().absolute()
        self._changed = changed
        self._watching: asyncio.Task[None] | None = None
        #: Bytes of each file, by its path relative to the folder (``/`` between its parts).
        self.files: Mapping[str, int] = {}

    async def open(self) -> None:
        """Look, and watch from now on."""
        self.files = await asyncio.to_thread(listed, self._storage)
        self._watching = spawn_lasting(self._watch, name="watch llm_storage")

    async def close(self) -> None:
        """Watch no more."""
        await cancel_and_wait(self._watching)

    async def look(self) -> None:
        """Look now."""
        found = await asyncio.to_thread(listed, self._storage)
        if found != self.files:
            self.files = found
            self._changed()

    async def _watch(self) -> None:
        from watchfiles import watch  # takes a while to import

        # Nothing reports changes of what doesn't exist.
        while not await asyncio.to_thread(self._storage.is_dir):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_ANYWAY_MS / 1000)
        await self.look()  # it may have come meanwhile
        ended = threading.Event()
        changes = watch(
            self._storage,
            watch_filter=lambda _change, path: _is_of_interest(path),
            step=_LOOK_EVERY_MS,
            rust_timeout=_LOOK_ANYWAY_MS,
            yield_on_timeout=True,
            stop_event=ended,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )
        # A thread of its own, as in gateway.library.
        thread = ThreadPoolExecutor(1, thread_name_prefix="watch llm_storage")
        loop = asyncio.get_running_loop()
        try:
            while await loop.run_in_executor(thread, next, changes, None) is not None:
                await self.look()
        finally:
            ended.set()
            thread.shutdown(wait=False)


def listed(storage: Path) -> dict[str, int]:
    """Return the bytes of each GGUF file below ``storage``. Blocks; without the folder there are
    none.
    """
    found = {}
    try:
        for file in gguf_files(storage):
            name = file.relative_to(storage).as_posix()
            if name.isprintable() and (size := _size(file)):
                found[name] = size
    except OSError as error:
        _log.warning("llm_storage (%s) cannot be read: %s", storage, error.strerror)
    return found


def _is_of_interest(path: str) -> bool:
    """Return whether a change of ``path`` may be one of a model's file, or of a folder."""
    name = path.rpartition("/")[2]
    return not name.startswith(".")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


class Missing(NamedTuple):
    """A file that a model needs and that isn't there.

    ``copied_as``: its path below any ``llm_storage``; ``None``: it can't be copied, ``why``.
    """

    reference: str
    copied_as: str | None
    why: str | None = None


def has_files(spec: LocalModel, storage: Path) -> bool:
    """Return whether all files of ``spec`` that are counted in its memory are here. Blocks."""
    try:
        files = model_files(spec, storage)
    except LoadFailed:
        return False
    return all(part.is_file() for file in files.values() for part in split_parts(file))


def missing(spec: LocalModel, storage: Path) -> list[Missing]:
    """Return what ``spec`` needs and ``storage`` lacks: of split files, every part. Blocks."""
    found = []
    for reference in _references(spec):
        try:
            path = resolve_model_path(reference, storage)
        except LoadFailed as error:
            found.append(Missing(reference, None, error.detail or error.message))
            continue
        for part in _all_parts(path):
            if part.is_file():
                continue
            relative = _below(part, storage)
            if relative is None:
                why = f"{part} is not below llm_storage ({storage}), and only what is can be copied"
                found.append(Missing(reference, None, why))
            elif not relative.lower().endswith(".gguf"):
                why = f"{part} does not exist, and only GGUF files are copied: put it there"
                found.append(Missing(reference, None, why))
            else:
                found.append(Missing(reference, relative))
    return found


def given(spec: LocalModel, storage: Path) -> dict[str, Path]:
    """Return the files of ``spec`` that other machines may have, by their path below ``storage``.

    None but GGUF files, and none that lies elsewhere: models.json is another machine's, and must
    not be a way to whatever this one has. Blocks.
    """
    found = {}
    for reference in _references(spec):
        try:
            path = resolve_model_path(reference, storage)
        except LoadFailed:
            continue
        for part in _all_parts(path):
            relative = _below(part, storage)
            if relative is not None and _is_gguf(part):
                found[relative] = part
    return found


def _references(spec: LocalModel) -> Iterable[str]:
    """Yield what ``spec`` names of files, once each."""
    grammar = (spec.params.grammar_file,) if spec.params.grammar_file else ()
    return dict.fromkeys((*spec.files, *grammar))


def _all_parts(path: Path) -> Iterator[Path]:
    """Yield every part of a split file, whether it is there or not, as its name counts them."""
    match = SPLIT.fullmatch(path.name)
    if match is None or match[2] != "00001":
        yield path
        return
    for number in range(1, min(int(match[3]), _MOST_PARTS) + 1):
        yield path.with_name(f"{match[1]}-{number:05}-of-{match[3]}.gguf")


def _below(path: Path, storage: Path) -> str | None:
    """Return ``path`` relative to ``storage``, ``None`` where it leads elsewhere."""
    try:
        relative = PurePosixPath(path.relative_to(storage.expanduser()))
    except ValueError:
        return None
    return safe_path(str(relative))


def _is_gguf(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError:
        return False
