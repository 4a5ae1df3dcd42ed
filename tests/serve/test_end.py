"""How `llm-gateway serve` ends."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import openai
import pytest

from tests.harness import (
    DEMO,
    DEMO_GGUF,
    FAKE,
    alive,
    fake_model,
    project,
    wait_until,
)
from tests.serve.processes import STORY, Serve, backend_pids


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
