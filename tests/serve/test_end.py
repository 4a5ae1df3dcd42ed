"""How `llm-gateway serve` ends."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
from pathlib import Path

import aiohttp
import openai
import pytest

from gateway.tasks import spawn
from tests.harness import (
    DEMO,
    DEMO_GGUF,
    FAKE,
    Served,
    alive,
    fake_model,
    project,
    wait_until,
)
from tests.serve.processes import STORY, Serve, backend_pids
from tests.test_demo import get


def real_project(root: Path) -> Path:
    return project(root, {DEMO: {"params": {"model": DEMO_GGUF, "ctxSize": 4096}}})


def test_sigterm_lets_a_stream_finish(serve: Serve, tmp_path: Path) -> None:
    served = serve("--config", str(real_project(tmp_path)))
    with served.client() as client:
        stream = client.chat.completions.create(
            model=DEMO, messages=STORY, max_tokens=60, stream=True, extra_body={"ignore_eos": True}
        )
        first = next(iter(stream))
        assert first.choices
        pids = backend_pids(served)
        assert pids
        served.process.send_signal(signal.SIGTERM)
        served.wait_for(r"(shutting down); 1 running", served.log)
        with pytest.raises(openai.APIConnectionError):
            served.client().models.list()  # nobody new is let in
        rest = list(stream)
    assert rest[-1].choices[0].finish_reason == "length"
    assert served.stop() == 0
    assert not [pid for pid in pids if alive(pid)]


def test_sigkill_leaves_no_llama_server(serve: Serve, tmp_path: Path) -> None:
    served = serve("--config", str(real_project(tmp_path)))
    with served.client() as client:
        client.chat.completions.create(model=DEMO, messages=STORY, max_tokens=1)
    pids = backend_pids(served)
    assert pids
    served.stop(signal.SIGKILL)
    wait_until(lambda: not [pid for pid in pids if alive(pid)], 5, "the backend is gone too")


def test_a_second_signal_hurries(serve: Serve, tmp_path: Path) -> None:
    model = fake_model(tmp_path, chunks=10_000, pause=0.05)
    config = project(tmp_path / "p", {"slow": model}, llama_server=str(FAKE))
    served = serve("--config", str(config))
    with served.client() as client:
        stream = client.chat.completions.create(
            model="slow", messages=[{"role": "user", "content": "x"}], stream=True
        )
        next(iter(stream))
        pids = backend_pids(served)
        served.process.send_signal(signal.SIGTERM)
        served.wait_for(r"(shutting down); 1 running", served.log)
        assert served.stop(signal.SIGTERM, 10) == 0
    assert not [pid for pid in pids if alive(pid)]


async def test_clients_who_cannot_be_waited_for_are_told(serve: Serve, tmp_path: Path) -> None:
    models = {
        "slow": fake_model(tmp_path, chunks=10_000, pause=0.05),
        "silent": fake_model(tmp_path, hang=1),
    }
    config = project(tmp_path / "p", models, llama_server=str(FAKE), shutdown_timeout="1s")
    served = serve("--config", str(config))
    url, headers = f"{served.url}/v1/chat/completions", {"X-Api-Key": served.key}
    stream = {"model": "slow", "messages": STORY, "stream": True}
    async with aiohttp.ClientSession(headers=headers) as session:
        whole = spawn(
            session.post(url, json={"model": "silent", "messages": STORY}), name="a request"
        )
        async with session.post(url, json=stream) as response:
            await response.content.readline()
            await asyncio.to_thread(_wait_for_running, served, 2)
            served.process.send_signal(signal.SIGTERM)
            lines: list[bytes] = []
            with pytest.raises(aiohttp.ClientPayloadError):  # never a clean end
                await _read(response, lines)
        (last,) = [line for line in lines if b"error" in line]
        answer = await whole
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "10"
        assert (await answer.json())["error"]["code"] == "shutting_down"
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "shutting_down"
    assert served.stop() == 0


async def _read(response: aiohttp.ClientResponse, lines: list[bytes]) -> None:
    async for line in response.content:
        lines.append(line)


def _wait_for_running(served: Served, number: int) -> None:
    def running() -> bool:
        return get(served, "/admin/status")[1]["in_flight"] == number

    wait_until(running, 20, f"{number} requests run")


def open_files(pid: int) -> tuple[int, int]:
    """The soft and the hard limit of a process."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    soft, hard = line.split()[3:5]
    return int(soft), int(hard)


def test_open_files_are_allowed_as_far_as_connections_need(serve: Serve, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 256
    config = project(
        tmp_path / "p",
        {"m": fake_model(tmp_path)},
        llama_server=str(FAKE),
        limits={"connections": hard},
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        served = serve("--config", str(config))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with served.client() as client:
        client.chat.completions.create(model="m", messages=STORY)
    (backend,) = backend_pids(served)
    assert open_files(served.process.pid) == (hard, hard)
    assert open_files(backend) == (few, hard)
    assert served.wait_for(rf"only ({hard}) files may be open at once", served.log)
