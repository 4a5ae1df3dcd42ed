"""How much memory a machine has for models, from trees that look like its /proc and /sys."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from gateway.backends import process
from gateway.backends.command import bundled_program
from gateway.backends.devices import amd_devices, listed_devices, nvidia_devices
from gateway.backends.logring import LogRing
from gateway.backends.machine import read_machine
from gateway.backends.ram import Limit, cgroup_limits, ram_device, ram_free, ram_total
from gateway.backends.usage import (
    _ram_kept,
    _ram_used,
    group_members,
    memory_kept,
    memory_used,
)

MIB, GIB = 2**20, 2**30
#: A program that cannot list devices, as llama-server of 2024 couldn't.
OLD = (sys.executable, "-c", "raise SystemExit('error: invalid argument: --list-devices')")


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def meminfo(size: int) -> dict[str, str]:
    text = (
        f"MemTotal:       {size // 1024} kB\nMemFree:         1000 kB\nMemAvailable:    2000 kB\n"
    )
    return {"proc/meminfo": text}


def server(folder: Path, script: str) -> tuple[str, ...]:
    file = folder / "llama-server"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return (str(file),)


def listing(folder: Path, *devices: str, heading: str = "Available devices:") -> tuple[str, ...]:
    lines = "\n".join(("ggml_cuda_init: found GPUs", heading, *(f"  {d}" for d in devices)))
    return server(folder, f'[ "$*" = --list-devices ] || exit 3\ncat <<END\n{lines}\nEND')


# --- RAM -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "budget"),
    [
        (64 * GIB, 64 * GIB - int(6.4 * GIB)),  # 10% for the system
        (8 * GIB, 7 * GIB),  # at least 1 GiB
        (GIB, GIB // 2),  # never more than half
    ],
)
def test_ram_is_what_there_is_less_something_for_the_system(tmp_path, total, budget):
    machine = read_machine(OLD, {}, root=tree(tmp_path, meminfo(total)))
    assert not machine.gpu
    assert machine.total == total
    assert machine.budget == pytest.approx(budget, abs=1024)


def test_the_limit_of_a_cgroup_or_of_one_around_it_counts(tmp_path):
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


def test_version_1_of_cgroups_also_where_the_container_does_not_see_its_path(tmp_path):
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


def test_a_cgroup_without_a_limit_changes_nothing(tmp_path):
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


def test_what_is_free_is_what_could_be_had_without_swapping(tmp_path):
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
def test_a_cgroup_has_free_what_it_may_still_take_and_its_file_cache(tmp_path, version):
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


async def test_memory_that_another_program_takes_is_really_not_free(tmp_path):
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


def test_without_a_proc_the_c_library_is_asked(tmp_path):
    assert cgroup_limits(tmp_path) == []
    assert ram_total(tmp_path) == pytest.approx(ram_total(Path("/")), rel=0.01)


def test_this_very_machine_has_a_budget():
    machine = read_machine(bundled_program(), os.environ)
    assert not machine.gpu
    assert 0 < machine.budget < machine.total <= ram_total(Path("/"))


# --- GPUs ----------------------------------------------------------------------------------


def test_the_llama_server_itself_says_what_it_can_use(tmp_path):
    program = listing(
        tmp_path,
        "BLAS: OpenBLAS (0 MiB, 0 MiB free)",
        "CUDA0: NVIDIA GeForce RTX 3090 (24124 MiB, 23862 MiB free)",
        "Vulkan1: AMD Radeon RX 6600M (RADV NAVI23) (8176 MiB, 8000 MiB free)",
    )
    assert [(d.name, d.description, d.total, d.free) for d in listed_devices(program, {})] == [
        ("CUDA0", "NVIDIA GeForce RTX 3090", 24124 * MIB, 23862 * MIB),
        ("Vulkan1", "AMD Radeon RX 6600M (RADV NAVI23)", 8176 * MIB, 8000 * MIB),
    ]
    machine = read_machine(program, {}, root=tree(tmp_path, meminfo(64 * GIB)))
    assert machine.gpu
    assert machine.total == 32300 * MIB
    assert machine.total - machine.budget == int(24124 * MIB * 0.05) + 512 * MIB
    assert "2 GPU" in machine.source


def test_a_card_is_taken_once_and_a_chip_without_memory_only_where_there_is_no_card(tmp_path):
    card, chip = "NVIDIA GeForce RTX 3090", "AMD Radeon Graphics (RADV RAPHAEL)"
    program = listing(
        tmp_path,
        f"CUDA0: {card} (24124 MiB, 23862 MiB free)",
        f"CUDA1: {card} (24124 MiB, 20000 MiB free)",
        f"Vulkan0: {card} (24576 MiB, 23000 MiB free)",
        f"Vulkan1: {card} (24576 MiB, 23000 MiB free)",
        f"Vulkan2: {chip} (32768 MiB, 32000 MiB free)",
        "Vulkan3: Intel(R) Arc(tm) A770 Graphics (DG2) (16288 MiB, 16000 MiB free)",
    )
    assert [d.name for d in listed_devices(program, {})] == ["CUDA0", "CUDA1", "Vulkan3"]
    program = listing(tmp_path, f"Vulkan0: {chip} (32768 MiB, 32000 MiB free)")
    assert [d.description for d in listed_devices(program, {})] == [chip]


def test_a_llama_server_that_can_use_no_gpu_lives_in_ram(tmp_path):
    amd = {"sys/class/drm/card0/device/mem_info_vram_total": f"{16 * GIB}\n"}
    root = tree(tmp_path, {**meminfo(64 * GIB), **amd})
    for program in (listing(tmp_path), listing(tmp_path, "(none)"), bundled_program()):
        assert listed_devices(program, {}) == []
        assert not read_machine(program, {}, root=root).gpu


def test_a_list_in_another_form_says_nothing(tmp_path):
    assert listed_devices(listing(tmp_path, "CUDA0: NVIDIA X, 24 GiB"), {}) is None


def test_it_is_asked_with_the_environment_of_a_child(tmp_path):
    script = 'echo "Available devices:"; echo "  A: $SEEN$LLM_GATEWAY_SECRET (10 MiB, 1 MiB free)"'
    program = server(
        tmp_path, f'[ "$SEEN" = yes ] && [ -z "$LLM_GATEWAY_SECRET" ] && {{ {script}; }}'
    )
    (found,) = listed_devices(program, {"SEEN": "yes", "LLM_GATEWAY_SECRET": "x"})
    assert (found.total, found.free) == (10 * MIB, MIB)
    assert listed_devices(program, {}) is None


@pytest.mark.parametrize("program", [OLD, ("/nowhere/llama-server",), ("true",)])
def test_one_that_cannot_say_is_no_error(program):
    assert listed_devices(program, os.environ) is None


def test_one_that_never_answers_is_ended_with_all_it_started(tmp_path, caplog):
    program = server(tmp_path, f"echo $$ > {tmp_path}/pid; sleep 60; true")
    started = time.monotonic()
    assert listed_devices(program, os.environ, timeout=0.5) is None
    assert time.monotonic() - started < 10
    assert "did not answer" in caplog.text
    group = int((tmp_path / "pid").read_text())
    while group_members(group) and time.monotonic() - started < 10:
        time.sleep(0.01)  # those that init has yet to reap
    assert not group_members(group)


def test_amd_gpus_are_seen_and_a_carve_out_of_ram_is_not_one(tmp_path):
    root = tree(
        tmp_path,
        {
            **meminfo(64 * GIB),
            "sys/class/drm/card0/device/mem_info_vram_total": f"{512 * MIB}\n",
            "sys/class/drm/card1/device/mem_info_vram_total": f"{16 * GIB}\n",
            "sys/class/drm/card1/device/mem_info_vram_used": f"{3 * GIB}\n",
            "sys/class/drm/card2/device/vendor": "0x8086\n",
        },
    )
    assert [(d.total, d.free) for d in amd_devices(root)] == [(16 * GIB, 13 * GIB)]
    machine = read_machine(OLD, {}, root=root)
    assert (machine.gpu, machine.total) == (True, 16 * GIB)


#: What nvidia-ml-py offers, of a machine with two cards (a third has no answer). The real
#: package needs a driver.
NVML = """
class NVMLError(Exception): pass
class Info:
    def __init__(self, **values): self.__dict__.update(values)
calls = []
BROKEN = False
def nvmlInit():
    calls.append("init")
    if BROKEN: raise NVMLError("Driver Not Loaded")
def nvmlShutdown(): calls.append("shutdown")
def nvmlDeviceGetCount(): return 3
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetMemoryInfo(device):
    if device == 2: raise NVMLError("Not Supported")
    return Info(total=(24, 8)[device] * 2**30, free=(20, 1)[device] * 2**30)
def nvmlDeviceGetName(device): return ("NVIDIA RTX 3090", b"NVIDIA T400")[device]
processes = [{}, {}, {}]
def nvmlDeviceGetComputeRunningProcesses(device):
    return [Info(pid=pid, usedGpuMemory=used) for pid, used in processes[device].items()]
def nvmlDeviceGetGraphicsRunningProcesses(device):
    if device == 2: raise NVMLError("Not Supported")
    return nvmlDeviceGetComputeRunningProcesses(device)[:1]
"""


@pytest.fixture
def nvml(tmp_path, monkeypatch):
    folder = tmp_path / "packages"
    tree(folder, {"pynvml.py": NVML})
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    import pynvml

    yield pynvml
    del sys.modules["pynvml"]


def test_nvidia_gpus_through_nvml(tmp_path, nvml):
    assert [(d.description, d.total, d.free) for d in nvidia_devices()] == [
        ("NVIDIA RTX 3090", 24 * GIB, 20 * GIB),
        ("NVIDIA T400", 8 * GIB, GIB),
    ]
    assert nvml.calls == ["init", "shutdown"]
    machine = read_machine(OLD, {}, root=tree(tmp_path, meminfo(64 * GIB)))
    assert (machine.gpu, machine.total) == (True, 32 * GIB)
    assert machine.source == "NVML: 2 GPU(s)"


def test_no_driver_means_ram(tmp_path, nvml):
    nvml.BROKEN = True
    assert nvidia_devices() == []
    assert not read_machine(OLD, {}, root=tree(tmp_path, meminfo(8 * GIB))).gpu
    assert memory_used(os.getpgid(0), gpu=True) is None


# --- what a child has taken ----------------------------------------------------------------


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


async def test_all_of_a_process_group_counts(tmp_path):
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


def test_what_each_process_holds_now_is_added_up(tmp_path):
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


def test_what_the_kernel_would_give_to_others_is_not_kept(tmp_path):
    status = "VmRSS: 900 kB\nRssAnon: 100 kB\nRssFile: 700 kB\nRssShmem: 100 kB\nVmLck: {} kB\n"
    root = tree(tmp_path, {"proc/50/status": status.format(0)})
    assert _ram_kept({50, 51}, root) == 200 * 1024
    tree(tmp_path, {"proc/50/status": status.format(600)})  # --mlock
    assert _ram_kept({50}, root) == 800 * 1024
    assert _ram_kept({51}, root) is None


async def test_a_mapped_file_is_used_and_not_kept(tmp_path):
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


def test_gpu_memory_of_a_group_on_all_cards(nvml):
    mine, group = os.getpid(), os.getpgid(0)
    elsewhere = 4_000_000_005  # more than there can be (proc(5), pid_max)
    nvml.processes[:] = [{mine: 3 * GIB, elsewhere: 9 * GIB}, {mine: GIB}, {mine: None}, {}]
    assert memory_used(group, gpu=True) == 4 * GIB
    # In a container the driver may name the processes of the host.
    nvml.processes[:] = [{elsewhere: 3 * GIB}, {}, {}]
    assert memory_used(group, gpu=True) is None
