"""Checks the folder of saved conversations. It is only looked at, not locked."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.config.settings import Settings
from gateway.conversations.files import CacheFiles
from gateway.doctor.checks import Finding, Level, Subject, size
from gateway.plurals import counted

#: Bytes below which hardly a conversation has room.
_TIGHT: Final = 256 * 2**20


def check_conversations(subject: Subject) -> Iterator[Finding]:
    """Check where conversations are saved, whether they can be, and how much room they have."""
    running = subject.running.cache if subject.running is not None else None
    if running is not None and running.get("enabled"):
        yield from _of_gateway(running)
    else:
        yield from _of_folder(subject.settings)


def _of_gateway(told: Mapping[str, Any]) -> Iterator[Finding]:
    """Check what the running gateway tells (``GET /admin/cache``)."""
    if told["problem"] is not None:
        yield _warn(f"conversations are not saved: {told['problem']}", "mend cache.dir")
    else:
        yield _room(told["folder"], told["conversations"], told["size"], told["budget"])
    for one in told.get("nodes", ()):  # a gateway that is older doesn't tell
        if (why := one["problem"]) is not None:
            what = f"conversations are not saved on the node {one['node']}: {why}"
            yield _warn(what, "see `llm-gateway node list`, and cache.dir there")
        else:
            room = one["conversations"], one["size"], one["budget"]
            yield _room(f"cache.dir of the node {one['node']}", *room)
    for one in told["models"]:
        if one["switched_off"] is not None:
            what = f"conversations of {one['model']} are not saved any more: {one['switched_off']}"
            yield _warn(what, "llama-server may be too old; a restart tries again")
        if (why := one.get("not_private")) is not None:
            what = f"keys may notice what others asked of {one['model']}: {why}"
            yield _warn(what, "a newer llama-server, or --no-cache-prompt in its extraArgs")


def _of_folder(settings: Settings) -> Iterator[Finding]:
    folder, enabled = settings.cache_dir, settings.cache.enabled
    try:
        status = folder.stat()
        files = _states(folder)
    except FileNotFoundError:
        where = f"in {folder}, which is not there yet" if enabled else "(cache.enabled is false)"
        yield _ok(f"conversations are {'' if enabled else 'not '}saved {where}")
        return
    except OSError as error:
        yield _warn(f"{folder} cannot be looked into: {error.strerror}", "as the gateway's user?")
        return
    held = sum(files)
    if not enabled:
        if files:
            what = f"{counted(len(files), 'conversation')} ({size(held)}) left in {folder}"
            yield _warn(f"{what}, and cache.enabled is false", "llm-gateway cache clear")
        else:
            yield _ok("conversations are not saved (cache.enabled is false)")
        return
    problem = _not_ours(folder, status, settings.data_dir)
    if problem is not None:
        yield problem
        return
    budget = CacheFiles(folder, settings.cache.max_size).budget(held)
    yield _room(str(folder), len(files), held, budget)


def _states(folder: Path) -> list[int]:
    """Return the sizes of what is saved in ``folder``."""
    with os.scandir(folder) as entries:
        names = [entry for entry in entries if entry.name.endswith(".kv")]
        return [entry.stat(follow_symlinks=False).st_size for entry in names]


def _not_ours(folder: Path, status: os.stat_result, data: Path) -> Finding | None:
    """Return what is wrong with the owner and mode of ``folder``, as the gateway will see it.

    It runs as the user whose data folder it uses.
    """
    user = data.stat().st_uid if data.exists() else os.geteuid()
    if status.st_uid != user:
        what = f"{folder} is {_name(status.st_uid)}'s, and the gateway runs as {_name(user)}"
        return _warn(what, f"chown -R {_name(user)} {folder}")
    if (mode := stat.S_IMODE(status.st_mode)) & (stat.S_IRWXG | stat.S_IRWXO):
        return _warn(f"{folder} is open to others (mode {mode:o})", f"chmod 700 {folder}")
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return _warn(f"{folder} can only be read", "mount it for writing")
    return None


def _room(folder: str, conversations: int, held: int, budget: int) -> Finding:
    saved = f"{counted(conversations, 'conversation')}, {size(held)} of at most {size(budget)}"
    what = f"{saved}, in {folder}"
    if budget < _TIGHT:
        return _warn(what, "make room on that disk, raise cache.max_size, or move cache.dir")
    return _ok(what)


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _ok(what: str) -> Finding:
    return Finding("cache", Level.OK, what)


def _warn(what: str, do: str) -> Finding:
    return Finding("cache", Level.WARNING, what, do)
