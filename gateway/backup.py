"""Makes a backup of a gateway in one file, and restores it. Everything blocks: only commands use
it.

A database in PostgreSQL is not in it: ``pg_dump`` is the tool for that, which knows the server's
version, and copies what other programs have in there.

The file is a tar archive, packed by gzip, with ``manifest.json`` at its beginning: what each file
is, how long, and its SHA-256. It holds hashes of keys, private keys and the passphrases of
``environment``, so it is for its owner alone. Models and saved prompt caches are not in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway import __version__
from gateway.access.schema import SCHEMA_VERSION
from gateway.config.load import load_settings
from gateway.config.settings import Settings
from gateway.private_files import FILE, make_folder, open_private

_FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"
#: The members of a backup besides ``acme/...``.
_CONFIG, _ENVIRONMENT, _MODELS = "gateway.yaml", "environment", "models.json"
_DATABASE: Final = "gateway.db"
_TLS: Final = ("private_key", "certificate", "ca_chain")
#: The most bytes of a manifest.
_LONGEST: Final = 2**20


class BackupError(Exception):
    """The backup can't be made or restored; the message says why."""


@dataclass(frozen=True, slots=True)
class BackupSource:
    """A gateway's configuration file, if it has one, and what it says."""

    config: Path | None
    root: Path
    settings: Settings

    @classmethod
    def at(cls, config: Path | None) -> BackupSource:
        """Return the one of ``config``, or of the usual places. Raises ``InvalidFiles``."""
        loaded = load_settings(config)
        return cls(loaded.file, loaded.root, loaded.settings)


@dataclass(frozen=True, slots=True)
class WrittenBackup:
    """A backup: ``names`` of what is in it, and ``left_out``: files elsewhere on the machine.

    ``has_database``: without it, keys, usage and requests are in a PostgreSQL database.
    """

    names: list[str]
    left_out: list[Path]
    has_database: bool


def places(source: BackupSource) -> dict[str, Path]:
    """Return where the files of a backup belong, by their names in it, but for ``acme/...``."""
    settings = source.settings
    found = {_MODELS: settings.models_file}
    if settings.store.url is None:
        found[_DATABASE] = settings.database
    if source.config is not None:
        found[_CONFIG] = source.config
        found[_ENVIRONMENT] = source.config.with_name(_ENVIRONMENT)
    for name in _TLS:
        file: Path | None = getattr(settings.tls, name)
        if file is not None:
            found[f"tls/{name}"] = file
    return found


# --- making one ----------------------------------------------------------------------------


def make(source: BackupSource, file: Path) -> WrittenBackup:
    """Write a backup to ``file``, all of it or nothing; the gateway may run meanwhile.

    Raises :class:`BackupError` or ``OSError``.
    """
    in_a_file = source.settings.store.url is None
    if in_a_file and not source.settings.database.exists():
        raise BackupError(f"there is no {source.settings.database}: nothing was set up yet")
    with tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=".backup-") as folder:
        wanted, left_out = _to_back_up(source)
        if in_a_file:
            wanted[_DATABASE] = Path(folder) / _DATABASE
            snapshot(source.settings.database, wanted[_DATABASE])
        whole = Path(folder) / "whole"
        whole.touch(mode=FILE)
        _pack(wanted, whole)
        whole.replace(file)
    return WrittenBackup(sorted(wanted), left_out, in_a_file)


def _to_back_up(source: BackupSource) -> tuple[dict[str, Path], list[Path]]:
    acme = source.settings.data_dir / "acme"
    wanted = {name: file for name, file in places(source).items() if file.is_file()}
    left_out = [
        file
        for name, file in wanted.items()
        if name.startswith("tls/") and not _is_below(file, source)
    ]
    wanted = {name: file for name, file in wanted.items() if file not in left_out}
    for file in acme.rglob("*"):
        if file.is_file() and not file.is_symlink():
            wanted[f"acme/{file.relative_to(acme)}"] = file
    return wanted, left_out


def _is_below(file: Path, source: BackupSource) -> bool:
    """Return whether ``file`` is the gateway's own, rather than the machine's
    (/etc/letsencrypt).
    """
    own = (source.root, source.settings.data_dir)
    return any(file.resolve().is_relative_to(folder.resolve()) for folder in own)


def snapshot(database: Path, target: Path) -> None:
    """Copy the database as it is at one moment, while others use it (SQLite's online backup)."""
    target.touch(mode=FILE)
    try:
        with (
            contextlib.closing(sqlite3.connect(database, timeout=10)) as there,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            there.backup(copy)
            (state,) = copy.execute("PRAGMA quick_check").fetchone()
    except sqlite3.Error as error:
        raise BackupError(f"{database} can't be copied: {error}") from error
    if state != "ok":
        raise BackupError(f"{database} is damaged: {state}")


def _pack(wanted: dict[str, Path], target: Path) -> None:
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "program": __version__,
        "schema": SCHEMA_VERSION,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": {
            name: {"sha256": _digest(file), "size": file.stat().st_size}
            for name, file in sorted(wanted.items())
        },
    }
    text = json.dumps(manifest, indent=2).encode()
    with tarfile.open(target, "w:gz") as archive:
        head = tarfile.TarInfo(_MANIFEST)
        head.size, head.mode = len(text), FILE
        archive.addfile(head, io.BytesIO(text))
        for name, file in sorted(wanted.items()):
            member = archive.gettarinfo(str(file), arcname=name)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode, member.size = FILE, manifest["files"][name]["size"]
            with file.open("rb") as stream:
                archive.addfile(member, stream)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- restoring one -------------------------------------------------------------------------


def restore(file: Path, config: Path, *, force: bool = False) -> list[Path]:
    """Put back what is in ``file``, for a gateway with its configuration at ``config``.

    Nothing is written unless the backup is complete. Existing files that differ are an error, or,
    with ``force``, kept as ``*.bak``. Returns what was written. Raises :class:`BackupError`,
    ``InvalidFiles`` or ``OSError``.
    """
    make_folder(config.absolute().parent)
    with tempfile.TemporaryDirectory(dir=config.absolute().parent, prefix=".restore-") as temporary:
        found = _unpack(file, Path(temporary))
        source = _source_of(found, config.absolute())
        if _DATABASE in found and source.settings.store.url is not None:
            raise BackupError(
                f"it has a {_DATABASE}, which nothing would read: store.url is set. Restore it "
                "where that isn't"
            )
        targets = _targets(found, source)
        make_folder(source.settings.data_dir)
        with alone(source.settings.data_dir):
            return _put(found, targets, source, force=force)


def _unpack(file: Path, folder: Path) -> dict[str, Path]:
    """Return the files in it, by name, each checked against the manifest."""
    try:
        with tarfile.open(file, "r:gz") as archive:
            manifest = _read_manifest(archive)
            found: dict[str, Path] = {}
            while (member := archive.next()) is not None:
                told = manifest["files"].get(member.name)
                known = told is not None and member.name not in found and member.isfile()
                if not known or member.size != told["size"]:
                    raise BackupError(f"{file} is no backup of a gateway: {member.name!r} in it")
                stream = archive.extractfile(member)
                assert stream is not None
                target = folder / str(len(found))  # never by a name that somebody else chose
                target.touch(mode=FILE)
                with target.open("wb") as out:
                    shutil.copyfileobj(stream, out)
                if _digest(target) != told["sha256"]:
                    raise BackupError(f"{file} is damaged: {member.name} is not what was written")
                found[member.name] = target
    except (tarfile.TarError, EOFError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise BackupError(f"{file} is no whole backup of a gateway: {error}") from error
    if missing := manifest["files"].keys() - found.keys():
        raise BackupError(f"{file} is cut short: {min(missing)} is missing")
    return found


def _read_manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    first = archive.next()
    stream = archive.extractfile(first) if first is not None and first.name == _MANIFEST else None
    if first is None or stream is None or first.size > _LONGEST:
        raise BackupError("its first file is no manifest")
    manifest: dict[str, Any] = json.loads(stream.read())
    if manifest["format"] != _FORMAT or manifest["schema"] > SCHEMA_VERSION:
        raise BackupError(
            f"it was made by llm-gateway {manifest['program']}, which is newer: install that "
            "version or a later one"
        )
    for name in manifest["files"]:
        known = name in (_CONFIG, _ENVIRONMENT, _MODELS, _DATABASE, *(f"tls/{n}" for n in _TLS))
        parts = Path(name).parts
        if not known and (parts[0] != "acme" or ".." in parts or Path(name).is_absolute()):
            raise BackupError(f"there is an unknown file in it: {name!r}")
    return manifest


def _source_of(found: dict[str, Path], config: Path) -> BackupSource:
    """Return the gateway that is restored, as its configuration says at the new place."""
    given = found.get(_CONFIG)
    if given is None:
        return BackupSource.at(config if config.exists() else None)
    # Relative paths in it start where it will be.
    there = config.with_name(f".{config.name}.restored")
    shutil.copyfile(given, there)
    try:
        source = BackupSource.at(there)
    finally:
        there.unlink()
    return BackupSource(config, source.root, source.settings)


def _targets(found: dict[str, Path], source: BackupSource) -> dict[str, Path]:
    known = places(source)
    acme = source.settings.data_dir / "acme"
    targets: dict[str, Path] = {}
    for name in found:
        target = known.get(name)
        if name.startswith("acme/"):
            target = acme / name.removeprefix("acme/")
        if target is not None:
            targets[name] = target
    return targets


@contextlib.contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Hold the data folder, so that no gateway runs there."""
    with open_private(data_dir / "gateway.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"a gateway runs on {data_dir}: stop it first") from None
        yield


def _put(
    found: dict[str, Path], targets: dict[str, Path], source: BackupSource, *, force: bool
) -> list[Path]:
    new = {
        name: target
        for name, target in targets.items()
        if not target.exists() or _digest(target) != _digest(found[name])
    }
    in_the_way = [target for target in new.values() if target.exists()]
    if in_the_way and not force:
        files = ", ".join(map(str, in_the_way))
        raise BackupError(f"other ones are there: {files}; --force keeps them as *.bak")
    for target in in_the_way:
        target.rename(target.with_name(f"{target.name}.bak"))
    if _DATABASE in new:
        for rest in ("-wal", "-shm"):  # of the database that was there
            new[_DATABASE].with_name(f"{_DATABASE}{rest}").unlink(missing_ok=True)
    for name, target in new.items():
        make_folder(target.parent)
        beside = target.with_name(f".{target.name}.restored")
        shutil.copyfile(found[name], beside)
        beside.chmod(FILE)
        give_to_owner_of(target.parent, beside)
        beside.replace(target)
    return sorted(new.values())


def give_to_owner_of(folder: Path, file: Path) -> None:
    """Give a file that root restores to the service's account, as its folder has it."""
    if os.geteuid() == 0:
        status = folder.stat()
        os.chown(file, status.st_uid, status.st_gid)
