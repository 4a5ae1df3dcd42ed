"""Real llama-servers that hang, or lose their file."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from gateway.backends.watchdog import Patience
from tests.crowd.programs import MEMORY, Program, answer, answers, entries, pid_of, status
from tests.harness import MakeGateway
from tests.scripted import gone

pytestmark = pytest.mark.slow


async def test_stopped_llama_server_is_replaced(
    make_gateway: MakeGateway, program: Program, tiny_model: Path
) -> None:
    async with make_gateway(
        entries(tiny_model, "a"),
        llama_server=str(program.path),
        scheduler=MEMORY,
        patience=Patience(interval=0.3, deaf_after=1.5, stuck_after=30),
    ) as running:
        await answers(running, "a")
        pid = pid_of(running, "a")
        os.kill(pid, signal.SIGSTOP)
        await answers(running, "a")  # it waits for as long as it takes, and knows nothing of it
        assert await gone(pid)
        assert "has not answered /health" in (status(running, "a").last_error or "")
        assert status(running, "a").deaths == 1


async def test_llama_server_that_never_becomes_healthy_is_given_up(
    make_gateway: MakeGateway, tmp_path: Path, tiny_model: Path
) -> None:
    sleeper = tmp_path / "llama-server"
    sleeper.write_text('#!/bin/sh\ncase "$*" in *--list*) exit 1;; esac\nexec sleep 600\n')
    sleeper.chmod(0o700)
    async with make_gateway(
        entries(tiny_model, "a"),
        llama_server=str(sleeper),
        scheduler=MEMORY,
        limits={"load_timeout": "1s"},
    ) as running:
        began = time.monotonic()
        code, body = await answer(running, "a")
        assert 1 < time.monotonic() - began < 15
        assert code == 500
        assert body["error"]["code"] == "model_load_failed"
        assert "made no progress for 1 s while loading" in body["error"]["message"]
        assert status(running, "a").pid is None


async def test_model_file_that_comes_back_is_loaded_again(
    make_gateway: MakeGateway, program: Program, tiny_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "disk/model.gguf"
    file.parent.mkdir()
    file.write_bytes(tiny_model.read_bytes())
    async with make_gateway(
        entries(file, "a"), llama_server=str(program.path), scheduler=MEMORY
    ) as running:
        await answers(running, "a")
        file.rename(tmp_path / "away.gguf")
        file.parent.rmdir()
        await answers(running, "a")  # the one that is loaded goes on
        await running.gateway.scheduler.unload("a")
        for _ in range(5):  # no death: it does not count as failing
            code, body = await answer(running, "a")
            assert (code, body["error"]["code"]) == (500, "model_file_not_found")
            assert str(file) in body["error"]["message"]
        file.parent.mkdir()
        (tmp_path / "away.gguf").rename(file)
        await answers(running, "a")
        assert status(running, "a").deaths == 0
