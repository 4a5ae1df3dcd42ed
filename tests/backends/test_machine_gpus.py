"""Which GPUs a machine has for models."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.command import bundled_program
from gateway.backends.devices import amd_devices, listed_devices, nvidia_devices
from gateway.backends.machine import read_machine
from gateway.backends.usage import (
    group_members,
    memory_used,
)
from tests.backends.machines import GIB, MIB, OLD, meminfo, tree


def server(folder: Path, script: str) -> tuple[str, ...]:
    file = folder / "llama-server"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return (str(file),)


def listing(folder: Path, *devices: str, heading: str = "Available devices:") -> tuple[str, ...]:
    lines = "\n".join(("ggml_cuda_init: found GPUs", heading, *(f"  {d}" for d in devices)))
    return server(folder, f'[ "$*" = --list-devices ] || exit 3\ncat <<END\n{lines}\nEND')


def test_the_llama_server_itself_says_what_it_can_use(tmp_path: Path) -> None:
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


def test_a_card_is_taken_once_and_a_chip_without_memory_only_where_there_is_no_card(
    tmp_path: Path,
) -> None:
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


def test_a_llama_server_that_can_use_no_gpu_lives_in_ram(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    amd = {"sys/class/drm/card0/device/mem_info_vram_total": f"{16 * GIB}\n"}
    root = tree(tmp_path, {**meminfo(64 * GIB), **amd})
    for program in (listing(tmp_path), listing(tmp_path, "(none)"), bundled_program()):
        with subtests.test(f"{program!r:.80}"):
            assert listed_devices(program, {}) == []
            assert not read_machine(program, {}, root=root).gpu


def test_a_list_in_another_form_says_nothing(tmp_path: Path) -> None:
    assert listed_devices(listing(tmp_path, "CUDA0: NVIDIA X, 24 GiB"), {}) is None


def test_it_is_asked_with_the_environment_of_a_child(tmp_path: Path) -> None:
    script = 'echo "Available devices:"; echo "  A: $SEEN$LLM_GATEWAY_SECRET (10 MiB, 1 MiB free)"'
    program = server(
        tmp_path, f'[ "$SEEN" = yes ] && [ -z "$LLM_GATEWAY_SECRET" ] && {{ {script}; }}'
    )
    (found,) = listed_devices(program, {"SEEN": "yes", "LLM_GATEWAY_SECRET": "x"})
    assert (found.total, found.free) == (10 * MIB, MIB)
    assert listed_devices(program, {}) is None


@pytest.mark.parametrize("program", [OLD, ("/nowhere/llama-server",), ("true",)])
def test_one_that_cannot_say_is_no_error(program: Any) -> None:
    assert listed_devices(program, os.environ) is None


def test_one_that_never_answers_is_ended_with_all_it_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = server(tmp_path, f"echo $$ > {tmp_path}/pid; sleep 60; true")
    started = time.monotonic()
    assert listed_devices(program, os.environ, timeout=0.5) is None
    assert time.monotonic() - started < 10
    assert "did not answer" in caplog.text
    group = int((tmp_path / "pid").read_text())
    while group_members(group) and time.monotonic() - started < 10:
        time.sleep(0.01)  # those that init has yet to reap
    assert not group_members(group)


def test_amd_gpus_are_seen_and_a_carve_out_of_ram_is_not_one(tmp_path: Path) -> None:
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


def test_nvidia_gpus_are_listed_by_nvml(tmp_path: Path, nvml: Any) -> None:
    assert [(d.description, d.total, d.free) for d in nvidia_devices()] == [
        ("NVIDIA RTX 3090", 24 * GIB, 20 * GIB),
        ("NVIDIA T400", 8 * GIB, GIB),
    ]
    assert nvml.calls == ["init", "shutdown"]
    machine = read_machine(OLD, {}, root=tree(tmp_path, meminfo(64 * GIB)))
    assert (machine.gpu, machine.total) == (True, 32 * GIB)
    assert machine.source == "NVML: 2 GPU(s)"


def test_no_driver_means_ram(tmp_path: Path, nvml: Any) -> None:
    nvml.BROKEN = True
    assert nvidia_devices() == []
    assert not read_machine(OLD, {}, root=tree(tmp_path, meminfo(8 * GIB))).gpu
    assert memory_used(os.getpgid(0), gpu=True) is None
