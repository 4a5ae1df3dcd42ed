"""A disk that is full, a folder that changes under the gateway, a model that does; for real."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.conversations.files import CacheFiles
from gateway.conversations.locked_folder import Unusable
from gateway.models.paths import resolve_model_path
from tests.conversations.faults import (
    SETTINGS,
    folder_of,
    names,
    pid_of,
    said,
    until,
)
from tests.conversations.test_real_llama_server import ask, entry
from tests.harness import DEMO_GGUF, MakeGateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_disk_that_is_full_at_any_byte_harms_nothing(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """llama-server can write no more than so many bytes."""
    models = {"a": entry(), "b": entry()}
    async with make_gateway(models, **SETTINGS, scheduler={"max_loaded": 1}) as running:
        await ask(running, "a", said(1))
        await ask(running, "b", [{"role": "user", "content": "Hi"}])
        (file,) = folder_of(running).glob("*.kv")
        size = file.stat().st_size
        for most in (0, 7, 4096, size // 2, size - 1):
            assert (await running.json("DELETE", "/admin/cache"))[0] == 200
            await ask(running, "a", said(1))
            _, hard = resource.prlimit(pid_of(running), resource.RLIMIT_FSIZE)
            resource.prlimit(pid_of(running), resource.RLIMIT_FSIZE, (most, hard))
            await ask(running, "b", [{"role": "user", "content": "Hi"}])
            await until(lambda: names(folder_of(running)) == [], f"nothing is left at {most}")
        backend = running.gateway.scheduler.backend("a")
        assert backend is not None
        assert backend.deaths == 0
    assert caplog.text.count("could not be saved") == 1


async def test_folder_that_is_deleted_is_made_anew(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    models = {"a": entry(), "b": entry()}
    async with make_gateway(models, **SETTINGS, scheduler={"max_loaded": 1}) as running:
        folder = folder_of(running)
        for seed in range(10, 14):
            for model in "ab":
                _, _, cached = await ask(running, model, said(10 * seed + ord(model)))
                assert cached < 40
                shutil.rmtree(folder)
        text, prompt, _ = await ask(running, "a", said(1))
        await ask(running, "b", [{"role": "user", "content": "Hi"}])
        went_on = [*said(1), {"role": "assistant", "content": text}, *said(3)]
        _, _, cached = await ask(running, "a", went_on)
        assert cached >= prompt, "saved where there was nothing"
        assert folder.stat().st_mode & 0o777 == 0o700
    assert "crashed" not in caplog.text


async def test_folder_that_becomes_a_file_is_said_once_and_harms_nothing(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    models = {"a": entry(), "b": entry()}
    async with make_gateway(models, **SETTINGS, scheduler={"max_loaded": 1}) as running:
        folder = folder_of(running)
        await ask(running, "a", said(1))
        shutil.rmtree(folder)
        folder.write_text("")
        for model in "baba":
            await ask(running, model, said(1))
    assert caplog.text.count("conversations are not saved") == 1
    assert "crashed" not in caplog.text


async def test_nothing_is_read_back_for_another_model_file(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    model = tmp_path / "m.gguf"
    shutil.copy(resolve_model_path(DEMO_GGUF, tmp_path), model)
    models = {"a": entry(), "b": entry()}
    models["a"]["params"]["model"] = str(model)
    async with make_gateway(models, **SETTINGS, scheduler={"max_loaded": 1}) as running:
        seen = []
        for replaced in (False, False, True):
            if replaced:
                other = tmp_path / "new.gguf"
                shutil.copy(model, other)
                other.rename(model)
            _, prompt, cached = await ask(running, "a", said(1))
            seen.append(cached > prompt // 2)
            await ask(running, "b", [{"role": "user", "content": "Hi"}])
        assert seen == [False, True, False]


async def test_nothing_is_read_back_by_a_llama_server_that_was_upgraded(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Its program stays as it is, and a library beside it becomes another one."""
    program, library = tmp_path / "bin/llama-server", tmp_path / "bin/libllama.so.0"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway.backends.bundled "$@"\n')
    program.chmod(0o755)
    library.write_text("b1")
    models = {"a": entry(), "b": entry()}
    settings = {**SETTINGS, "llama_server": str(program)}
    async with make_gateway(models, **settings, scheduler={"max_loaded": 1}) as running:
        seen = []
        for upgraded in (False, False, True):
            if upgraded:
                library.write_text("b2")
            _, prompt, cached = await ask(running, "a", said(1))
            seen.append(cached > prompt // 2)
            await ask(running, "b", [{"role": "user", "content": "Hi"}])
        assert seen == [False, True, False]


async def test_reload_leaves_the_folder_to_this_gateway(make_gateway: MakeGateway) -> None:
    models = {"a": entry(), "b": entry()}
    async with make_gateway(models, **SETTINGS, scheduler={"max_loaded": 1}) as running:
        text, prompt, _ = await ask(running, "a", said(1))
        for change in ({}, {"ttl": 3600}):
            entry_of_a = models["a"] | change
            file = Path(running.gateway.settings.models_file)
            file.write_text(json.dumps(models | {"a": entry_of_a}))
            await running.gateway.reload()
            with pytest.raises(Unusable, match="in use"):
                CacheFiles(folder_of(running), "auto").open()
        await ask(running, "b", said(2))
        went_on = [*said(1), {"role": "assistant", "content": text}, *said(3)]
        _, _, cached = await ask(running, "a", went_on)
        assert cached >= prompt


async def test_model_that_is_removed_after_its_process_died_is_not_kept_in_memory(
    make_gateway: MakeGateway,
) -> None:
    async with make_gateway({"a": entry()}, **SETTINGS) as running:
        await ask(running, "a", said(1))
        scheduler = running.gateway.scheduler
        old = weakref.ref(scheduler.backend("a"))
        os.kill(pid_of(running), signal.SIGKILL)
        await until(lambda: (seen := scheduler.backend("a")) is None or seen.pid is None, "dead")
        file = Path(running.gateway.settings.models_file)
        file.write_text(json.dumps({"b": entry()}))
        await running.gateway.reload()
        await ask(running, "b", said(1))
        await until(lambda: gc.collect() >= 0 and old() is None, "it is gone")


async def test_folder_that_becomes_read_only_harms_nothing(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    models = {"a": entry(), "b": entry()}
    async with make_gateway(models, **SETTINGS, scheduler={"max_loaded": 1}) as running:
        folder = folder_of(running)
        with read_only(folder):
            await ask(running, "a", said(1))
            for model in "bab":
                await ask(running, model, said(ord(model)))
            assert names(folder) == []
        text, prompt, _ = await ask(running, "a", said(1))
        await ask(running, "b", said(2))
        with read_only(folder):
            went_on = [*said(1), {"role": "assistant", "content": text}, *said(3)]
            _, _, cached = await ask(running, "a", went_on)
            assert cached >= prompt, "it can be read"
    assert caplog.text.count("model a: a conversation could not be saved") == 1
    assert caplog.text.count("cannot note that conversations were used") == 1
    assert "crashed" not in caplog.text


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    mount = ["mount", "--bind", str(folder), str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
