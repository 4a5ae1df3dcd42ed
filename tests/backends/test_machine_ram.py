"""How much RAM a machine has for models, from trees that look like its /proc and /sys."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.command import bundled_program
from gateway.backends.machine import read_machine
from gateway.backends.ram import Limit, cgroup_limits, ram_device, ram_free, ram_total
from tests.backends.machines import GIB, MIB, OLD, meminfo, tree


@pytest.mark.parametrize(
    ("total", "budget"),
    [
        (64 * GIB, 64 * GIB - int(6.4 * GIB)),  # 10% for the system
        (8 * GIB, 7 * GIB),  # at least 1 GiB
        (GIB, GIB // 2),  # never more than half
    ],
)
def test_ram_is_what_there_is_less_something_for_the_system(
    tmp_path: Path, total: Any, budget: Any
) -> None:
    machine = read_machine(OLD, {}, root=tree(tmp_path, meminfo(total)))
    assert not machine.gpu
    assert machine.total == total
    assert machine.budget == pytest.approx(budget, abs=1024)


def test_the_limit_of_a_cgroup_or_of_one_around_it_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            **meminfo(64 * GIB),
            "proc/self/cgroup": "0::/system.slice/llm-gateway.service\n",
            "sys/fs/cgroup/system.slice/llm-gateway.service/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/llm-gateway.service/memory.high": f"{20 * GIB}\n",
            "sys/fs/cgroup/system.slice/memory.max": f"{10 * GIB}\n",
            "sys/fs/cgroup/cgroup.controllers": "memory\n",
        },
    )
    assert sorted(cgroup_limits(root)) == [Limit(10 * GIB, None), Limit(20 * GIB, None)]
    machine = read_machine(OLD, {}, root=root)
    assert (machine.total, machine.source) == (10 * GIB, "limit of the cgroup")
    assert machine.budget == 10 * GIB - GIB // 2


def test_version_1_of_cgroups_also_where_the_container_does_not_see_its_path(
    tmp_path: Path,
) -> None:
    root = tree(
        tmp_path,
        {
            **meminfo(64 * GIB),
            "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:hugetlb,memory:/docker/0123:4\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",
        },
    )
    assert cgroup_limits(root) == [Limit(4 * GIB, None)]
    assert read_machine(OLD, {}, root=root).budget == 4 * GIB - 256 * MIB


def test_a_cgroup_without_a_limit_changes_nothing(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            **meminfo(16 * GIB),
            "proc/self/cgroup": "4:memory:/a\n0::/b\n",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/b/memory.max": "max\n",
        },
    )
    machine = read_machine(OLD, {}, root=root)
    assert (machine.total, machine.source) == (16 * GIB, "RAM")


def test_what_is_free_is_what_could_be_had_without_swapping(tmp_path: Path) -> None:
    root = tree(tmp_path, meminfo(64 * GIB))
    assert ram_free(root) == 2000 * 1024
    device = ram_device(root)
    assert (device.name, device.total, device.free) == ("RAM", 64 * GIB, 2000 * 1024)
    # The cache of ZFS makes room when others need it.
    arc = "13 1 0x01 147 39984 1 2\nname type data\nc_min 4 1000\nsize 4 5001000\n"
    tree(tmp_path, {"proc/spl/kstat/zfs/arcstats": arc})
    assert ram_free(root) == 2000 * 1024 + 5_000_000
    assert ram_free(tmp_path / "nothing") is None


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_has_free_what_it_may_still_take_and_its_file_cache(
    tmp_path: Path, version: int
) -> None:
    if version == 2:
        path, limit, used, prefix = "sys/fs/cgroup/x", "memory.max", "memory.current", ""
    else:
        path, limit = "sys/fs/cgroup/memory/x", "memory.limit_in_bytes"
        used, prefix = "memory.usage_in_bytes", "total_"
    statistics = f"{prefix}active_file {GIB}\n{prefix}inactive_file {2 * GIB}\nanon 5\n"
    root = tree(
        tmp_path,
        {
            "proc/meminfo": f"MemTotal: {64 * MIB} kB\nMemAvailable: {32 * MIB} kB\n",
            "proc/self/cgroup": "0::/x\n" if version == 2 else "4:memory:/x\n",
            f"{path}/{limit}": f"{10 * GIB}\n",
            f"{path}/{used}": f"{9 * GIB}\n",
            f"{path}/memory.stat": statistics,
        },
    )
    assert cgroup_limits(root) == [Limit(10 * GIB, 4 * GIB)]
    assert ram_device(root).free == 4 * GIB
    tree(tmp_path, {"proc/meminfo": f"MemTotal: {GIB} kB\nMemAvailable: {GIB // 1024} kB\n"})
    assert ram_device(root).free == GIB  # the machine has less than the group may take


async def test_memory_that_another_program_takes_is_really_not_free(tmp_path: Path) -> None:
    script = "held = b'x' * (600 * 2**20); print(len(held), flush=True); input()"
    before = ram_free(Path("/"))
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        await other.stdout.readline()
        # Others on this machine may give some back in the meantime.
        assert ram_free(Path("/")) < before - 200 * MIB
    finally:
        other.kill()
        await other.wait()


def test_without_a_proc_the_c_library_is_asked(tmp_path: Path) -> None:
    assert cgroup_limits(tmp_path) == []
    assert ram_total(tmp_path) == pytest.approx(ram_total(Path("/")), rel=0.01)


def test_this_very_machine_has_a_budget() -> None:
    machine = read_machine(bundled_program(), os.environ)
    assert not machine.gpu
    assert 0 < machine.budget < machine.total <= ram_total(Path("/"))
