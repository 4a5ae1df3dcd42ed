"""Checks the machine: its GPUs and memory, the room on its disks, its clock."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.backends.command import bundled_program
from gateway.backends.devices import Device
from gateway.backends.gpu_drivers import driver_here
from gateway.backends.gpus_seen import GpusSeen
from gateway.doctor.checks import Finding, Level, Subject, size

_MIB, _GIB = 2**20, 2**30
#: Free bytes of the data folder below which there is an error, or a warning: a database can't write
#: without room.
FULL, _TIGHT = 100 * _MIB, _GIB
#: The same for the folder of models: even small useful models are larger.
NO_MODEL: Final = 2 * _GIB
#: Free RAM below which the system itself is in trouble.
_NO_RAM: Final = 512 * _MIB
#: Seconds by which a file may seem to be from the future, on drives of other machines.
_FUTURE: Final = 120.0
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized


def check_devices(subject: Subject) -> Iterator[Finding]:
    """Check which GPUs llama-server finds, and how much of them and of RAM is free."""
    machine = subject.machine()
    file = subject.settings.data_dir / "gpus.json"
    seen = GpusSeen(file, subject.program, subject.environ, remember=False)
    if (problem := seen.compare(machine)) is not None:
        yield Finding("devices", Level.ERROR, problem)
    for device in machine.devices if machine.gpu else ():
        yield Finding(
            "devices", Level.OK, f"{device.description}, {_free(device)}", "", device.name
        )
    if not machine.gpu and problem is None:
        driver = driver_here()
        if driver is not None and subject.program and subject.program != bundled_program():
            yield Finding(
                *("devices", Level.WARNING),
                f"{driver} is here, but llama-server finds no GPU: models use the CPU",
                "take a llama.cpp that is built for it, and see that this user may use the GPU",
            )
        elif not machine.named and subject.program and subject.program != bundled_program():
            what = "llama-server doesn't say which GPUs it finds (--list-devices): none, it seems"
            yield Finding("devices", Level.WARNING, what, "update llama.cpp")
        else:
            yield Finding("devices", Level.OK, "no GPU: models use RAM and the CPU")
    ram = machine.ram or machine.devices[0]
    what = f"{_free(ram)}, {size(ram.budget)} for models"
    if ram.free is not None and ram.free < _NO_RAM:
        do = "end other programs, or unload models: the system may kill processes"
        yield Finding("memory", Level.WARNING, what, do)
    else:
        yield Finding("memory", Level.OK, what)


def _free(device: Device) -> str:
    if device.free is None:
        return size(device.total)
    return f"{size(device.free)} free of {size(device.total)}"


def check_disks(subject: Subject) -> Iterator[Finding]:
    """Check the room on disk for the database, and for models."""
    settings = subject.settings
    yield from _disk("data_dir", settings.data_dir, FULL, _TIGHT, "make room there")
    storage = settings.llm_storage
    if not storage.exists():
        named = [
            spec.file
            for spec in subject.catalog.models.values()
            if spec.file and not spec.file.startswith(("package:", "/", "~"))
        ]
        what = f"there is no folder {storage}"
        if named:
            do = "llm_storage in gateway.yaml says where the models are"
            yield Finding("disk", Level.ERROR, what, do, "llm_storage")
        else:
            yield Finding("disk", Level.OK, f"{what}, and no model needs it", "", "llm_storage")
        return
    yield from _disk("llm_storage", storage, 0, NO_MODEL, "there is no room for another model")


def _disk(subject: str, folder: Path, full: int, tight: int, do: str) -> Iterator[Finding]:
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    usage, status = shutil.disk_usage(place), os.statvfs(place)
    what = f"{size(usage.free)} free of {size(usage.total)} at {folder}"
    level = Level.OK
    if usage.free < full:
        level = Level.ERROR
    elif usage.free < tight:
        level = Level.WARNING
    if full and status.f_files and not status.f_favail:
        level, what = Level.ERROR, f"no more files can be made at {folder} (no inodes are left)"
    if full and status.f_flag & os.ST_RDONLY:
        level, what, do = Level.ERROR, f"{folder} can only be read", "mount it for writing"
    yield Finding("disk", level, what, "" if level is Level.OK else do, subject)


def check_clock(subject: Subject) -> Iterator[Finding]:
    """Check the time, as far as that is possible without asking anybody.

    With a wrong clock certificates seem expired, or not valid yet, and keys expire at odd times.
    """
    now = time.time()
    settings = subject.settings
    files = (Path(__file__), settings.models_file, settings.database)
    later = [file for file in files if _modified(file) > now + _FUTURE]
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if later:
        what = f"it says {shown}, but {later[0].name} was written later"
        yield Finding("clock", Level.ERROR, what, "set it, best by NTP: timedatectl set-ntp true")
    elif (synchronised := is_synchronised()) is False:
        what = f"it says {shown}, and nothing keeps it right"
        do = "let NTP do it: timedatectl set-ntp true (in a container, on its host)"
        yield Finding("clock", Level.WARNING, what, do)
    else:
        how = "kept right by NTP" if synchronised else "as far as can be told here"
        yield Finding("clock", Level.OK, f"{shown}, {how}")


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def is_synchronised() -> bool | None:
    """Return whether the kernel's clock is synchronised (adjtimex(2)); ``None`` if it can't
    be told.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        # With modes 0, as it is here, it only reads; the struct has 208 bytes on 64-bit machines.
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR
