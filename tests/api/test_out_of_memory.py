"""A load that dies for want of memory: tried once more with the others out of the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.backends.backend import State
from gateway.backends.model_status import ModelStatus
from tests.harness import MakeGateway, Running, fake_model


def models(tmp_path: Path, oom: str) -> dict[str, Any]:
    starts = tmp_path / "starts"
    return {
        "big": fake_model(tmp_path, oom=oom, starts=starts),
        "small": fake_model(tmp_path, starts=starts),
    }


def status(running: Running, model: str) -> ModelStatus:
    return next(s for s in running.gateway.scheduler.status() if s.name == model)


async def test_the_others_go_and_the_client_sees_nothing_of_it(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway(models(tmp_path, "beside")) as running:
        assert (await running.chat("small"))[0] == 200
        code, answer = await running.chat("big")
        assert code == 200, answer
        assert status(running, "big").starts == 2
        assert status(running, "small").state is State.STOPPED
        # It has room now; the other one may come back beside it.
        assert (await running.chat("small"))[0] == 200
        assert status(running, "big").state is State.READY


async def test_a_second_time_is_one_clear_error(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway(models(tmp_path, "1")) as running:
        assert (await running.chat("small"))[0] == 200
        code, answer = await running.chat("big")
        assert code == 500
        assert answer["error"]["code"] == "out_of_memory"
        assert "cudaMalloc failed: out of memory" in answer["error"]["message"]
        assert status(running, "big").starts == 2
        assert (await running.chat("small"))[0] == 200


async def test_alone_it_is_not_tried_again(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway(models(tmp_path, "1")) as running:
        code, answer = await running.chat("big")
        assert (code, answer["error"]["code"]) == (500, "out_of_memory")
        assert status(running, "big").starts == 1


async def test_one_that_works_is_not_ended_for_it_but_waited_for(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    both = models(tmp_path, "beside")
    both["small"]["env"] |= {"FAKE_CHUNKS": "10", "FAKE_PAUSE": "0.1"}
    async with make_gateway(both) as running:
        body = {"model": "small", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with running.request("POST", "/v1/chat/completions", json=body) as stream:
            assert await stream.content.readline()
            code, answer = await running.chat("big")
            assert code == 200, answer
            assert (await stream.text()).endswith("data: [DONE]\n\n")
