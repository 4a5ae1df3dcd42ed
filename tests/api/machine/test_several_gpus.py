"""Several GPUs: which model goes where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.backends import machine_report
from gateway.backends.backend import State
from tests.api.machine.gpus import Gpus, hurried, model, starts, status
from tests.harness import MakeGateway

pytestmark = pytest.mark.slow


GIB = 2**30


def devices(start: dict[str, Any]) -> str | None:
    argv = start["argv"]
    return argv[argv.index("--device") + 1] if "--device" in argv else None


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
    monkeypatch.setattr(machine_report, "SEEN_WITHIN", 0.0)
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
    make_gateway: MakeGateway, tmp_path: Path, gpus: Gpus, subtests: pytest.Subtests
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
            with subtests.test(f"{name!r:.80}"):
                assert (await running.chat(name))[0] == 200
        assert [s["argv"].count("--device") for s in starts(tmp_path)] == [1, 1, 0]
        # 15 and 5 on CUDA1, which leaves the least; 9 on CUDA0 and 3 there would be too much.
        assert status(running, "split").devices == ("CUDA0", "CUDA1")
        assert (await running.chat("c"))[0] == 200
        assert status(running, "a").state is State.STOPPED
