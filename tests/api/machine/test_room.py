"""Memory that other programs hold is no room."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.backends.backend import State
from gateway.backends.ram import ram_free
from gateway.tasks import spawn
from tests.api.machine.gpus import Gpus, hurried, model, starts, status
from tests.harness import FAKE, MakeGateway, fake_model
from tests.scripted import until
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow


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
        await asyncio.sleep(0.5)  # nothing must happen meanwhile
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
async def test_ram_that_another_program_holds_is_no_room(
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
