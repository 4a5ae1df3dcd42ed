"""What a child has taken of a machine."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from gateway.backends import process
from gateway.backends.logring import LogRing
from gateway.backends.usage import (
    _ram_kept,
    _ram_used,
    group_members,
    memory_kept,
    memory_used,
)
from tests.backends.machines import GIB, MIB, tree

#: Takes 50 MiB, starts a child that takes as much, says so, and waits.
HUNGRY = """
import os, sys
held = b"x" * (50 * 2**20)
if len(sys.argv) == 1:
    import subprocess
    other = subprocess.Popen([sys.executable, sys.argv[0], "other"])
    other.wait()
print("holding", flush=True)
import signal; signal.pause()
"""


async def test_all_of_a_process_group_counts(tmp_path: Path) -> None:
    script = tmp_path / "hungry.py"
    script.write_text(HUNGRY)
    log, holding = LogRing(), asyncio.Event()
    log.listen(holding.set)
    child = await process.start((sys.executable, str(script)), {}, log=log, name="hungry")
    try:
        await holding.wait()
        members = group_members(child.pid)
        assert child.pid in members
        assert len(members) == 2
        used = memory_used(child.pid, gpu=False)
        assert used is not None
        assert 100 * MIB < used < 160 * MIB
    finally:
        await child.stop(5)
    assert memory_used(child.pid, gpu=False) is None


def test_what_each_process_holds_now_is_added_up(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/50/status": "Name:\tllama-server\nVmHWM:\t 9000 kB\nVmRSS:\t    3000 kB\n",
            "proc/51/status": "VmRSS:\t    4 kB\n",
            "proc/52/status": "Name:\tllama-server\nState:\tZ (zombie)\n",  # without memory
            "proc/53/status": "VmRSS:\t 999999 kB\n",
        },
    )
    assert _ram_used({50, 51, 52, 54}, root) == 3004 * 1024
    assert _ram_used({52}, root) is None


def test_what_the_kernel_would_give_to_others_is_not_kept(tmp_path: Path) -> None:
    status = "VmRSS: 900 kB\nRssAnon: 100 kB\nRssFile: 700 kB\nRssShmem: 100 kB\nVmLck: {} kB\n"
    root = tree(tmp_path, {"proc/50/status": status.format(0)})
    assert _ram_kept({50, 51}, root) == 200 * 1024
    tree(tmp_path, {"proc/50/status": status.format(600)})  # --mlock
    assert _ram_kept({50}, root) == 800 * 1024
    assert _ram_kept({51}, root) is None


async def test_a_mapped_file_is_used_and_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(40 * MIB))
    script = tmp_path / "mapping.py"
    script.write_text(
        "import mmap, signal, sys\n"
        "with open(sys.argv[1]) as file:\n"
        "    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "print(len(mapped[::4096]), flush=True)\n"
        "signal.pause()\n"
    )
    log, mapped = LogRing(), asyncio.Event()
    log.listen(mapped.set)
    argv = (sys.executable, str(script), str(file))
    child = await process.start(argv, {}, log=log, name="mapping")
    try:
        await mapped.wait()
        used, kept = memory_used(child.pid, gpu=False), memory_kept(child.pid, gpu=False)
        assert used is not None
        assert kept is not None
        assert used - kept > 40 * MIB
    finally:
        await child.stop(5)


def test_gpu_memory_of_a_group_is_summed_over_cards(nvml: Any) -> None:
    mine, group = os.getpid(), os.getpgid(0)
    elsewhere = 4_000_000_005  # more than there can be (proc(5), pid_max)
    nvml.processes[:] = [{mine: 3 * GIB, elsewhere: 9 * GIB}, {mine: GIB}, {mine: None}, {}]
    assert memory_used(group, gpu=True) == 4 * GIB
    # In a container the driver may name the processes of the host.
    nvml.processes[:] = [{elsewhere: 3 * GIB}, {}, {}]
    assert memory_used(group, gpu=True) is None
