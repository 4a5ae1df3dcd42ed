"""What goes wrong while a conversation is saved or read back, with the bundled llama-server.

A process that is stopped (SIGSTOP) is in the middle of what it was asked for as long as it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conversations.faults import (
    RESTORING,
    SAVING,
    SETTINGS,
    begun,
    doing,
    folder_of,
    names,
    over,
    pid_of,
    said,
    stopped,
    until,
)
from tests.conversations.test_real_llama_server import ask, entry
from tests.harness import MakeGateway, Running, Served, project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_llama_server_killed_during_a_save_harms_no_request(
    make_gateway: MakeGateway,
) -> None:
    async with make_gateway({"a": entry()}, **SETTINGS) as running:
        await ask(running, "a", said(1))
        with stopped(pid := pid_of(running)):
            await begun(SAVING)
            os.kill(pid, signal.SIGKILL)
            await over(SAVING)
        _, prompt, cached = await ask(running, "a", said(1))
        assert cached < prompt, "another process, and nothing is saved"
        await until(lambda: names(folder_of(running)) == [".json", ".kv"], "it is saved now")


async def test_llama_server_killed_during_a_restore_harms_no_request(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_gateway({"a": entry()}, **SETTINGS) as running:
        text, _, _ = await ask(running, "a", said(1))
        await ask(running, "a", said(2))  # the first one is saved before it
        await until(lambda: len(names(folder_of(running))) == 4, "both are saved")
        went_on = [*said(1), {"role": "assistant", "content": text}, *said(3)]
        with stopped(pid := pid_of(running)):
            asking = doing(ask(running, "a", went_on))
            await begun(RESTORING)
            os.kill(pid, signal.SIGKILL)
        text, _, _ = await asking
        assert text, "answered by the next process"
        backend = running.gateway.scheduler.backend("a")
        assert backend is not None
        assert backend.starts == 2
        await ask(running, "a", said(4))
    assert "crashed" not in caplog.text


async def test_swap_waits_for_a_save_that_has_begun(make_gateway: MakeGateway) -> None:
    models = {"a": entry(), "b": entry()}
    async with make_gateway(models, **SETTINGS, scheduler={"max_loaded": 1}) as running:
        text, prompt, _ = await ask(running, "a", said(1))
        with stopped(pid_of(running)):
            await begun(SAVING)
            other = doing(ask(running, "b", said(2)))
            await until(lambda: loading(running, "b"), "the swap has begun")
        await other
        went_on = [*said(1), {"role": "assistant", "content": text}, *said(3)]
        _, _, cached = await ask(running, "a", went_on)
        assert cached >= prompt


async def test_swap_waits_no_longer_for_a_save_than_computing_would_take(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    models = {"a": entry(), "b": entry()}
    async with make_gateway(models, **SETTINGS, scheduler={"max_loaded": 1}) as running:
        await ask(running, "a", said(1))
        with stopped(pid_of(running)):  # and never goes on
            other, _, _ = await ask(running, "b", said(2))
        assert other
        text, _, cached = await ask(running, "a", said(1))
        assert text
        assert cached == 0
    assert "model a: not all of its conversations were saved" in caplog.text


def loading(running: Running, model: str) -> bool:
    backend = running.gateway.scheduler.backend("a")
    return backend is None or backend.state.name == "STOPPING"


async def test_save_goes_on_when_the_request_that_waits_for_it_is_given_up(
    make_gateway: MakeGateway,
) -> None:
    async with make_gateway({"a": entry()}, **SETTINGS) as running:
        text, prompt, _ = await ask(running, "a", said(1))
        with stopped(pid_of(running)):
            stranger = doing(ask(running, "a", said(2)))
            await begun(SAVING)
            stranger.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await stranger
        await over(SAVING)
        await until(lambda: names(folder_of(running)) == [".json", ".kv"], "it is kept")
        went_on = [*said(1), {"role": "assistant", "content": text}, *said(3)]
        _, _, cached = await ask(running, "a", went_on)
        assert cached >= prompt, "and its slot is as it was"


async def test_restore_goes_on_when_its_request_is_given_up(make_gateway: MakeGateway) -> None:
    async with make_gateway({"a": entry()}, **SETTINGS) as running:
        text, prompt, _ = await ask(running, "a", said(1))
        await ask(running, "a", said(2))
        await until(lambda: len(names(folder_of(running))) == 4, "both are saved")
        went_on = [*said(1), {"role": "assistant", "content": text}, *said(3)]
        with stopped(pid_of(running)):
            asking = doing(ask(running, "a", went_on))
            await begun(RESTORING)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
            again = doing(ask(running, "a", went_on))
            await asyncio.sleep(0)
        _, _, cached = await again
        assert cached >= prompt


@pytest.mark.parametrize("how", ["DELETE", "revoked"])
async def test_what_is_removed_while_it_is_saved_does_not_come_back(
    make_gateway: MakeGateway, how: str
) -> None:
    async with make_gateway({"a": entry()}, **SETTINGS) as running:
        ring = running.gateway.ring
        assert ring is not None
        record, key = await ring.create("guest", "")
        body = {"model": "a", "messages": said(1), "max_tokens": 4}
        status, _ = await running.json("POST", "/v1/chat/completions", json=body, key=key)
        assert status == 200
        with stopped(pid_of(running)):
            await begun(SAVING)
            if how == "DELETE":
                answer = await running.json("DELETE", "/admin/cache")
                assert answer == (200, {"removed": 0}), "it doesn't wait for llama-server"
            else:
                await ring.revoke(record.id)
        await over(SAVING)
    assert names(folder_of(running)) == []


async def test_nothing_of_a_revoked_key_is_saved_any_more(make_gateway: MakeGateway) -> None:
    models = {"a": entry(), "b": entry()}
    async with make_gateway(models, **SETTINGS, scheduler={"max_loaded": 1}) as running:
        ring = running.gateway.ring
        assert ring is not None
        record, key = await ring.create("guest", "")
        body = {"model": "a", "messages": said(1), "max_tokens": 4}
        status, _ = await running.json("POST", "/v1/chat/completions", json=body, key=key)
        assert status == 200
        await ring.revoke(record.id)
        await ask(running, "b", said(2))  # `a` would be saved before it
        assert names(folder_of(running)) == []


@pytest.mark.parametrize("during", [SAVING, RESTORING])
async def test_gateway_killed_in_the_middle_goes_on_with_what_was_whole(
    tmp_path: Path, during: str
) -> None:
    config = project(tmp_path / "p", {"a": entry()}, **SETTINGS)
    folder = tmp_path / "p/data/cache"
    served = Served(tmp_path / "p", "--config", str(config))
    try:
        headers = {"Authorization": f"Bearer {served.key}"}
        async with aiohttp.ClientSession(served.url, headers=headers) as session:
            first = await chat(session, said(1))
            await until(lambda: names(folder) == [".json", ".kv"], "it is saved")
            await chat(session, said(2))
            if during == RESTORING:
                await until(lambda: len(names(folder)) == 4, "so that nothing has to be before it")
            (model,) = (await got(session, "/admin/models"))["models"]
            (folder / f"new-{'0' * 24}").write_bytes(b"half")  # as if it had begun
            with stopped(model["pid"]):
                last = doing(chat(session, gone_on(first)))
                async with asyncio.timeout(60):
                    while (await got(session, "/admin/models"))["models"][0]["in_flight"] == 0:
                        await asyncio.sleep(0.01)
                await asyncio.to_thread(served.stop, signal.SIGKILL)
            with pytest.raises(aiohttp.ClientError):
                await last
    finally:
        served.stop(signal.SIGKILL)
    served = Served(tmp_path / "p", "--config", str(config))
    try:
        async with aiohttp.ClientSession(served.url, headers=headers) as session:
            served.wait_for("(saved, )", served.log)
            assert len(names(folder)) == (4 if during == RESTORING else 2)
            assert "new" not in names(folder)
            usage = (await chat(session, gone_on(first)))["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        assert cached >= first["usage"]["prompt_tokens"]
    finally:
        assert served.stop() == 0
    assert "Traceback" not in "".join(served.log)


def gone_on(first: Any) -> list[dict[str, str]]:
    text = first["choices"][0]["message"]["content"]
    return [*said(1), {"role": "assistant", "content": text}, *said(3)]


async def chat(session: aiohttp.ClientSession, messages: list[dict[str, str]]) -> Any:
    body = {"model": "a", "messages": messages, "max_tokens": 4, "temperature": 0}
    async with session.post("/v1/chat/completions", json=body) as answer:
        assert answer.status == 200
        return await answer.json()


async def got(session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(path) as answer:
        assert answer.status == 200
        return await answer.json()
