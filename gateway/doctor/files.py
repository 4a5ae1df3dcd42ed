"""Checks permissions of files and folders, and the files of models."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.backends.entry_check import faults_here
from gateway.backends.estimate import estimate
from gateway.config.settings import Settings
from gateway.doctor.checks import Finding, Level, Subject, size
from gateway.models.local_model import LocalModel

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def check_permissions(subject: Subject) -> Iterator[Finding]:
    """Check that only we can read data and secrets, and nobody else can change what chooses
    programs.
    """
    settings, found = subject.settings, False
    for finding in (*_secrets(settings), *_programs(subject)):
        found = True
        yield finding
    if not found:
        folder = settings.data_dir
        whose = f"is for {_owner(folder)} alone" if folder.exists() else "is not there yet"
        yield Finding("permissions", Level.OK, f"{folder} {whose}")


def _secrets(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    if folder.is_dir() and (mode := _mode(folder)) & _OTHERS:
        what = f"{folder} is open to others (mode {mode:o})"
        yield _bad(what, f"chmod 700 {folder}", Level.WARNING)
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        who = f"it is {_owner(folder)}'s"
        yield _bad(f"{folder} can't be written to by you: {who}", f"sudo -u {_owner(folder)}")
    for file in secret_files(settings):
        try:
            mode = _mode(file)
        except OSError:
            continue
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            yield _bad(
                f"{file} can be read or changed by others (mode {mode:o})", f"chmod 600 {file}"
            )
        elif not os.access(file, os.R_OK):
            yield _bad(f"{file} can't be read by you: it is {_owner(file)}'s", "", Level.WARNING)


def secret_files(settings: Settings) -> Iterator[Path]:
    """Yield every file with keys in it."""
    database, acme = settings.database, settings.data_dir / "acme"
    yield from (database, database.with_name(f"{database.name}-wal"))
    yield settings.data_dir / "first-admin-key.txt"
    yield from (*acme.glob("*.pem"), *acme.glob("*/*.pem"))
    if (key := settings.tls.private_key) is not None:
        yield key
        yield from (file for file in sorted(key.parent.glob("*-key.pem")) if file != key)


def _programs(subject: Subject) -> Iterator[Finding]:
    """Check who may write models.json and the program: they run programs as the gateway's user."""
    files = [subject.settings.models_file]
    if subject.program:
        files.append(Path(subject.program[0]))
    for file in files:
        for place in (file, file.parent):
            try:
                status = place.stat()
            except OSError:
                continue
            sticky = place.is_dir() and status.st_mode & stat.S_ISVTX
            if status.st_mode & stat.S_IWOTH and not sticky:
                what = f"{place} can be written by every user, and chooses what programs run"
                yield _bad(what, f"chmod o-w {place}")
                break
            if status.st_mode & stat.S_IWGRP and not _is_ours_alone(status.st_gid):
                what = f"{place} can be written by the group {_group(status.st_gid)}"
                do = f"chmod g-w {place}, unless they shall choose what programs run"
                yield _bad(what, do, Level.WARNING)
                break


def _is_ours_alone(gid: int) -> bool:
    """Return whether a group is root's, or a user's own (as most Linux systems make it)."""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return gid == 0 or (gid == user.pw_gid and set(group.gr_mem) <= {user.pw_name})


def _bad(what: str, do: str, level: Level = Level.ERROR) -> Finding:
    return Finding("permissions", level, what, do)


def _mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def _owner(file: Path) -> str:
    uid = file.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


# --- models ----------------------------------------------------------------------------------


def check_models(subject: Subject) -> Iterator[Finding]:
    """Check each entry of models.json: its files, and whether there is memory for it."""
    models = subject.catalog.models
    if not models:
        do = "llm-gateway models scan FOLDER finds those you have, llm-gateway pull gets one"
        yield Finding("model", Level.WARNING, "there are none in models.json", do)
        return
    running = {}
    if subject.running is not None:
        running = {one["name"]: one for one in subject.running.status.get("models", ())}
    for spec in models.values():
        state = running.get(spec.name, {})
        own = spec if isinstance(spec, LocalModel) else None
        wrong = list(faults_here(own, subject.settings)) if own is not None else []
        for fault in wrong:
            level = Level.ERROR if fault.sure else Level.WARNING
            yield Finding("model", level, f"{fault.key}: {fault.message}", "", spec.name)
        if state.get("state") == "failed":
            what = f"can't be loaded: {state.get('last_error') or 'no reason is known'}"
            yield Finding("model", Level.ERROR, what, "llm-gateway logs NAME has more", spec.name)
        elif state.get("degraded"):
            yield Finding(
                "model", Level.WARNING, f"is on the CPU: {state['degraded']}", "", spec.name
            )
        elif own is None:
            yield Finding(
                "model", Level.OK, "is elsewhere, and needs no memory here", "", spec.name
            )
        elif own.may_run_elsewhere(cluster=subject.settings.cluster is not None):
            yield Finding("model", Level.OK, "may run on another machine", "", spec.name)
        elif not any(fault.sure for fault in wrong):
            yield _fits(own, subject)


def _fits(spec: LocalModel, subject: Subject) -> Finding:
    machine, wanted = subject.machine(), subject.settings.scheduler.memory_budget
    needs = estimate(spec, subject.settings.llm_storage, gpu=machine.gpu)
    total = spec.memory or needs.total
    budget = machine.budget if wanted == "auto" else min(wanted, machine.budget)
    what = f"needs about {size(total)} of the {size(budget)} for models"
    if spec.require_gpu and not machine.gpu:
        return Finding("model", Level.ERROR, "requires a GPU, and there is none", "", spec.name)
    if needs.ram:
        what += f", and {size(needs.ram)} of RAM"
    if total > budget:
        do = "a smaller ctxSize or quantisation, or fewer gpuLayers"
        what = f"needs about {size(total)}, and there is {size(budget)} for models"
        return Finding("model", Level.WARNING, what, do, spec.name)
    if needs.ram and machine.ram is not None and needs.ram > machine.ram.budget:
        do = "a smaller quantisation"
        return Finding("model", Level.WARNING, f"{what}, which has less", do, spec.name)
    return Finding("model", Level.OK, what, "", spec.name)
