"""What is refused for want of memory, and above all what isn't: what ran before the memory was
looked at goes on to run. llama-server itself knows best whether a load succeeds.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.backends import capacity as capacity_module
from gateway.backends import machine as machine_module
from gateway.backends.accounts import Accounts
from gateway.backends.capacity import Capacity
from gateway.backends.decision import Act, ModelView, SchedulingLimits
from gateway.backends.devices import Device, NotTold, ask_devices, gpu
from gateway.backends.machine import Machine, MachineReader
from gateway.backends.memory import Needs, fingerprint
from gateway.backends.placement import Resident
from gateway.backends.policy import decide
from gateway.backends.ram import RAM
from gateway.models.catalog import parse_catalog
from tests.gguf_file import Kind, entry, write_gguf

GIB = 2**30
NOW = 1000.0
LLAMA = {
    "llama.block_count": 32,
    "llama.context_length": 8192,
    "llama.embedding_length": 4096,
    "llama.feed_forward_length": 14336,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
}


def box(*gpus: tuple[float, float], ram: tuple[float, float | None] = (32, 24)) -> Machine:
    """``gpus``, ``ram``: GiB that there are, and of that free."""
    total, free = ram
    there = Device(RAM, "RAM", int(total * GIB), None if free is None else int(free * GIB), GIB)
    if not gpus:
        return Machine((there,), "RAM")
    cards = (
        gpu(f"CUDA{i}", "a card", int(total * GIB), int(free * GIB))
        for i, (total, free) in enumerate(gpus)
    )
    return Machine(tuple(cards), "a test", True, True, there)


class Box:
    """One machine and one entry of models.json, with a file of so many GiB (of holes)."""

    def __init__(self, folder: Path, machine: Machine, budget: float | None = None) -> None:
        self.folder = folder
        self.capacity = Capacity(lambda: machine, None if budget is None else int(budget * GIB))
        self.measured: dict[str, int] = {}

    async def acts(
        self,
        gib: float,
        model: dict[str, Any],
        beside: tuple[ModelView, ...] = (),
        *,
        header: dict[str, Any] | None = None,
        measured: float | None = None,
        since: float = NOW,
    ) -> list[Act]:
        params = {"model": "m.gguf", **model.get("params", {})}
        values = [entry(key, Kind.U32, value) for key, value in (LLAMA | (header or {})).items()]
        architecture = entry("general.architecture", Kind.STRING, "llama")
        write_gguf(self.folder / "m.gguf", [architecture, *values], [])
        os.truncate(self.folder / "m.gguf", int(gib * GIB))
        text = json.dumps({"m": {**model, "params": params}})
        (spec,) = parse_catalog(text).ours
        await self.capacity.look([Resident(0, view.on, settled=True) for view in beside])
        machine = self.capacity.machine
        if measured is not None:
            key = fingerprint(spec, self.folder, gpu=machine.gpu)
            self.measured[key] = int(measured * GIB)

        async def remember(key: str, size: int) -> None:
            raise AssertionError

        needs = Needs(self.folder, self.measured, remember, gpu=machine.gpu)
        accounts = Accounts(needs, self.capacity, {})
        await accounts.need_of(spec)
        wanted = ModelView(
            "m", waiting=1, oldest_wait=since, short_since=since, demand=accounts.demand(spec)
        )
        memory = replace(accounts.memory(), seen=NOW)
        decision = decide(
            [*beside, wanted], SchedulingLimits(budget=self.capacity.budget), NOW, memory
        )
        return [action.act for action in decision.actions]


def extra(*args: str, **params: Any) -> dict[str, Any]:
    return {"extraArgs": list(args), "params": params}


@pytest.mark.parametrize(
    ("machine", "gib", "model", "more"),
    [
        # Weights in RAM are pages of the file.
        (box(ram=(16, 15)), 30, {}, {}),
        (box(ram=(16, 8)), 30, {}, {}),
        (box(ram=(16, 8)), 12, {}, {}),
        (box(ram=(16, 8)), 12, {}, {"measured": 11}),
        (box(ram=(16, 8)), 12, {"params": {"gpuLayers": 80}}, {}),
        (box(ram=(16, None)), 30, {"params": {"mlock": True}}, {}),
        (box(ram=(16, 8)), 9, {"params": {"noMmap": True}}, {}),  # an estimate is no more than that
        (box(ram=(4, 3.5)), 30, {}, {}),
        # Some layers on a small card, the rest in little RAM.
        (box((8, 7), ram=(32, 12)), 40, {"params": {"gpuLayers": 1}}, {}),
        (box((8, 2), ram=(16, 4)), 20, {"params": {"gpuLayers": 0}}, {}),
        (box((8, 0.2), ram=(16, 4)), 20, {"params": {"gpuLayers": 0}}, {}),
        (box((8, 0.2), ram=(16, 8)), 5, {"extraArgs": ["--device", "none"]}, {}),
        # Parts of it elsewhere than its layers, and servers elsewhere.
        (box((8, 5)), 60, extra("--cpu-moe"), {}),
        (box((8, 5)), 60, extra("-ot", "exps=CPU", gpuLayers=99), {}),
        (box((8, 5)), 60, extra("--n-cpu-moe=20"), {"measured": 7}),
        (box((8, 5)), 60, {"env": {"LLAMA_ARG_CPU_MOE": "1"}}, {}),
        (box((8, 5)), 60, extra("--rpc", "192.0.2.1:50052"), {}),
        (box((8, 5)), 20, extra("--fit", "on"), {}),
        # No context is asked for, and that of the training is far too large.
        (box((24, 18)), 14, {}, {"header": {"llama.context_length": 2**20}}),
        (box((24, 18)), 14, {}, {"header": {"llama.context_length": 2**20}, "measured": 21}),
        # Attention that takes less than it is counted with.
        (
            box((24, 18)),
            14,
            {"params": {"ctxSize": 2**20}},
            {"header": {"llama.attention.sliding_window": 1024}},
        ),
        # Numbers that are off by a little.
        (box((24, 21)), 1, {"memory": "22GiB"}, {}),
        (box((24, 21)), 20, {"params": {"ctxSize": 512}}, {"measured": 21}),
        (box((24, 23)), 1, {"memory": "24GiB"}, {}),
        # What was never looked at as a whole by anybody: too big for all there is.
        (box((8, 7.5)), 40, {}, {}),
        (box((24, 23), (24, 23)), 60, {}, {}),
        # One card has too little, both have enough.
        (box((24, 12), (24, 20)), 21, {"params": {"ctxSize": 512}}, {}),
    ],
)
async def test_what_may_run_is_tried(
    tmp_path: Path, machine: Any, gib: int, model: Any, more: dict[str, Any]
) -> None:
    assert await Box(tmp_path, machine).acts(gib, model, **more) == [Act.START]


@pytest.mark.parametrize(
    ("machine", "gib", "model", "more"),
    [
        (box((24, 2)), 15, extra(gpuLayers=99, ctxSize=4096), {}),
        (box((24, 2)), 15, extra(gpuLayers=99), {}),
        (box((24, 2)), 15, extra(gpuLayers=99), {"measured": 15}),
        (box((24, 2)), 1, {"memory": "15GiB"}, {}),
        (box((24, 2)), 15, extra(noMmap=True), {}),
        (box((24, 2), (24, 3)), 15, extra(gpuLayers=99), {}),
        (box((24, 2), (24, 20)), 15, extra("--device", "CUDA0", gpuLayers=99), {}),
        (box(ram=(32, 3)), 15, {"params": {"noMmap": True}}, {}),
        (box(ram=(32, 3)), 15, {"env": {"LLAMA_ARG_MLOCK": "1"}}, {}),
        (box((24, 22), ram=(32, 3)), 20, {"params": {"gpuLayers": 1, "noMmap": True}}, {}),
    ],
)
async def test_what_cannot_run_is_refused_in_the_end(
    tmp_path: Path, machine: Any, gib: int, model: Any, more: dict[str, Any]
) -> None:
    there = Box(tmp_path, machine)
    assert await there.acts(gib, model, **more) == []
    assert await there.acts(gib, model, **more, since=NOW - 60) == [Act.GIVE_UP]


@pytest.mark.parametrize(
    ("machine", "model", "more"),
    [
        (box((24, 2)), {}, {}),
        (box((24, 2)), {"params": {"ctxSize": 4096}}, {}),
        (box((24, 2)), {}, {"measured": 15}),
        (box((24, 2), (24, 3)), {}, {}),
        (box((24, 2), (24, 20)), {"extraArgs": ["--device", "CUDA0"]}, {}),
    ],
)
async def test_layers_that_may_stay_in_ram_are_waited_for_and_then_do(
    tmp_path: Path, machine: Any, model: dict[str, Any], more: dict[str, Any]
) -> None:
    there = Box(tmp_path, machine)
    assert await there.acts(15, model, **more) == []
    assert await there.acts(15, model, **more, since=NOW - 60) == [Act.START]


async def test_beside_what_is_pinned_a_little_less_will_do(tmp_path: Path) -> None:
    """Nothing that could still go is in its way, so that to wait is no use."""
    pinned = ModelView("p", resident=True, ready=True, pinned=True, on=((RAM, GIB),))
    assert await Box(tmp_path, box(ram=(16, 11))).acts(12, {}, (pinned,)) == [Act.START]
    idle = replace(pinned, pinned=False)
    assert await Box(tmp_path, box(ram=(16, 11))).acts(12, {}, (idle,)) == [Act.STOP]


async def test_budget_that_was_set_never_keeps_a_lone_model_out(tmp_path: Path) -> None:
    assert await Box(tmp_path, box((24, 23)), 8).acts(15, {}) == [Act.START]
    assert await Box(tmp_path, box((24, 23)), 100).acts(15, {}) == [Act.START]
    assert await Box(tmp_path, box(ram=(16, 12)), 100).acts(30, {}) == [Act.START]


async def test_a_model_that_is_loading_makes_nobody_look_short_of_memory(tmp_path: Path) -> None:
    """Of what it will take, nobody knows how much it has taken already."""
    machine = box((24, 14))  # 10 GiB of ours, or of others?
    there = Capacity(lambda: machine, None)
    on = (("CUDA0", 10 * GIB),)
    loading = ModelView("p", resident=True, starting=True, pinned=True, on=on)
    needs = replace(ModelView("m").demand, size=8 * GIB, least=8 * GIB)
    wanted = ModelView("m", waiting=1, oldest_wait=NOW - 60, short_since=NOW - 60, demand=needs)
    await there.look([Resident(0, on, settled=False)])
    memory = replace(there.memory, seen=NOW)
    assert decide([loading, wanted], SchedulingLimits(), NOW, memory).actions == ()
    await there.look([Resident(0, on, settled=True)])
    loaded = replace(loading, starting=False, ready=True)
    memory = replace(there.memory, seen=NOW)
    (action,) = decide([loaded, wanted], SchedulingLimits(), NOW, memory).actions
    assert action.act is Act.START


# --- looks that fail, or hang --------------------------------------------------------------


def scripted(folder: Path) -> tuple[tuple[str, ...], Callable[[str], None]]:
    """A llama-server, and what sets the script that it is."""
    file = folder / "llama-server"

    def put(script: str) -> None:
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    return (str(file),), put


LIST = "echo 'Available devices:'; echo '  CUDA0: NVIDIA X (24576 MiB, 20000 MiB free)'"


def test_a_gpu_too_full_to_be_asked_is_not_gone(tmp_path: Path) -> None:
    """To ask for its free memory, CUDA takes some of it, and aborts where there is none."""
    program, put = scripted(tmp_path)
    reader = MachineReader()
    put(LIST)
    assert reader.read(program, os.environ).gpu
    put("echo 'CUDA error: out of memory' >&2; kill -ABRT $$")
    with pytest.raises(NotTold, match="--list-devices ended with status -6"):
        reader.read(program, os.environ)
    put("echo 'Available devices:'; echo '  (none)'")
    assert not reader.read(program, os.environ).gpu
    put("exit 1")  # it has none to lose any more
    assert not reader.read(program, os.environ).gpu
    put(LIST)
    assert reader.read(program, os.environ).gpu


async def test_what_was_seen_stays_where_a_look_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program, put = scripted(tmp_path)
    put(LIST)
    reader = MachineReader()
    there = Capacity(lambda: reader.read(program, os.environ), None)
    await there.look()
    put("exit 1")
    before = there.machine, there.memory.cards
    asked = time.monotonic()
    for _ in range(3):
        await there.look()
    assert (there.machine, there.memory.cards) == before
    assert there.memory.seen >= asked  # good enough to decide by
    assert caplog.text.count("cannot be told") == 1


def test_a_wrapper_that_never_answers_is_not_waited_for_at_every_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, put = scripted(tmp_path)
    put(f"echo asked >> {tmp_path}/asked; exec sleep 60")
    real = ask_devices
    monkeypatch.setattr(machine_module, "ask_devices", lambda *args: real(*args, timeout=0.5))
    reader = MachineReader()
    for _ in range(3):
        assert reader.read(program, os.environ).devices
    assert (tmp_path / "asked").read_text() == "asked\n"


async def test_a_look_that_hangs_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A driver that is stuck: the gateway goes on with what it knew, and asks no second time."""
    monkeypatch.setattr(capacity_module, "PATIENCE", 0.2)
    stuck, looks = threading.Event(), []

    def read() -> Machine:
        looks.append(1)
        if len(looks) == 2:
            stuck.wait(30)
        return box((24, 20))

    there = Capacity(read, None)
    await there.look()
    seen = there.memory
    async with asyncio.timeout(5):
        for _ in range(3):
            asked = time.monotonic()
            await there.look()
            assert there.memory.cards == seen.cards
            assert there.memory.seen >= asked
    assert len(looks) == 2
    assert "nothing has come of a look" in caplog.text
    stuck.set()
    async with asyncio.timeout(5):
        while len(looks) < 3:
            await there.look()


def test_a_gpu_that_works_in_all_of_the_ram_has_its_file_cache_too(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "meminfo").write_text(f"MemTotal: {122 * 2**20} kB\nMemAvailable: {110 * 2**20} kB\n")
    program, put = scripted(tmp_path)
    total = 122 * 1024
    put(f"echo 'Available devices:'; echo '  CUDA0: NVIDIA GB10 ({total} MiB, 4096 MiB free)'")
    (device,) = MachineReader(tmp_path).read(program, os.environ).devices
    assert device.free == 110 * GIB


ENDS = """
import asyncio, os, sys
from pathlib import Path
from gateway.backends.capacity import Capacity
from gateway.backends.machine import MachineReader

async def main(program, pid):
    there = Capacity(lambda: MachineReader().read((program,), os.environ), None)
    looking = asyncio.ensure_future(there.look())
    while not pid.exists() or not pid.read_text().strip():
        await asyncio.sleep(0.01)
    if sys.argv[3] == "killed":
        os.kill(os.getpid(), 9)

asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
@pytest.mark.parametrize("how", ["ends", "killed"])
def test_a_gateway_ends_while_a_look_hangs_and_leaves_nothing_behind(
    tmp_path: Path, how: str
) -> None:
    (program,), put = scripted(tmp_path)
    put(f"echo $$ > {tmp_path}/pid; exec sleep 60")
    began = time.monotonic()
    argv = [sys.executable, "-c", ENDS, program, str(tmp_path / "pid"), how]
    status = subprocess.run(argv, check=False, timeout=30).returncode
    assert status == (-9 if how == "killed" else 0)
    assert time.monotonic() - began < 10  # and not until --list-devices is given up
    left = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/cmdline")
    while left.exists() and left.read_bytes() and time.monotonic() - began < 20:
        time.sleep(0.01)  # one that nobody has reaped yet has no command line
    assert not left.exists() or not left.read_bytes()
