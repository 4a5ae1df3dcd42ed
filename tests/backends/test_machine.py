"""How much memory a machine has for models, from trees that look like its /proc and /sys."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from gateway.backends import process
from gateway.backends.command import bundled_program
from gateway.backends.logring import LogRing
from gateway.backends.machine import (
    _ram_used,
    amd_totals,
    cgroup_limits,
    group_members,
    listed_devices,
    memory_used,
    nvml_totals,
    ram_total,
    read_machine,
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
    assert sorted(cgroup_limits(root)) == [10 * GIB, 20 * GIB]
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
    assert cgroup_limits(root) == [4 * GIB]
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
    assert listed_devices(program, {}) == [24124 * MIB, 8176 * MIB]
    machine = read_machine(program, {}, root=tree(tmp_path, meminfo(64 * GIB)))
    assert machine.gpu
    assert machine.total == 32300 * MIB
    assert machine.reserve == int(24124 * MIB * 0.05) + 512 * MIB
    assert "2 GPU" in machine.source


def test_a_llama_server_that_can_use_no_gpu_lives_in_ram(tmp_path):
    amd = {"sys/class/drm/card0/device/mem_info_vram_total": f"{16 * GIB}\n"}
    root = tree(tmp_path, {**meminfo(64 * GIB), **amd})
    for program in (listing(tmp_path), listing(tmp_path, "(none)"), bundled_program()):
        assert listed_devices(program, {}) == []
        assert not read_machine(program, {}, root=root).gpu


def test_it_is_asked_with_the_environment_of_a_child(tmp_path):
    script = 'echo "Available devices:"; echo "  A: $SEEN$LLM_GATEWAY_SECRET (10 MiB, 1 MiB free)"'
    program = server(
        tmp_path, f'[ "$SEEN" = yes ] && [ -z "$LLM_GATEWAY_SECRET" ] && {{ {script}; }}'
    )
    assert listed_devices(program, {"SEEN": "yes", "LLM_GATEWAY_SECRET": "x"}) == [10 * MIB]
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
            "sys/class/drm/card2/device/vendor": "0x8086\n",
        },
    )
    assert amd_totals(root) == [512 * MIB, 16 * GIB]
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
    return Info(total=(24, 8)[device] * 2**30)
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
    assert nvml_totals() == [24 * GIB, 8 * GIB]
    assert nvml.calls == ["init", "shutdown"]
    machine = read_machine(OLD, {}, root=tree(tmp_path, meminfo(64 * GIB)))
    assert (machine.gpu, machine.total) == (True, 32 * GIB)
    assert machine.source == "NVML: 2 GPU(s)"


def test_no_driver_means_ram(tmp_path, nvml):
    nvml.BROKEN = True
    assert nvml_totals() == []
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


def test_gpu_memory_of_a_group_on_all_cards(nvml):
    mine, group = os.getpid(), os.getpgid(0)
    elsewhere = 4_000_000_005  # more than there can be (proc(5), pid_max)
    nvml.processes[:] = [{mine: 3 * GIB, elsewhere: 9 * GIB}, {mine: GIB}, {mine: None}, {}]
    assert memory_used(group, gpu=True) == 4 * GIB
    # In a container the driver may name the processes of the host.
    nvml.processes[:] = [{elsewhere: 3 * GIB}, {}, {}]
    assert memory_used(group, gpu=True) is None
