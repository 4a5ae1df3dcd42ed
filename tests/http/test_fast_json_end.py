"""The fast JSON protocol: how answers end, broken ones and those of a gateway that stops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
from pathlib import Path

import pytest

from gateway.models.local_model import LocalModel
from gateway.proxy import relay
from gateway.tasks import cancel_and_wait, spawn
from tests.harness import MakeGateway, eventually, fake_model
from tests.http.fast_json import STREAM, answers_in, narrow, nothing_is_left
from tests.remote_server import Asked, RemoteServer
from tests.wire import CHAT, connected, post, small, with_tls

# --- the end -------------------------------------------------------------------------------


async def test_gateway_that_stops_ends_its_connections(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    models = {"good": fake_model(tmp_path), "slow": fake_model(tmp_path, gate=gate)}
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(make_gateway(models))
        clients = contextlib.AsyncExitStack()
        async with clients:
            idle, busy, half, fresh = [
                await clients.enter_async_context(connected(running)) for _ in range(4)
            ]
            idle.send(post(running, CHAT))
            assert (await idle.answer())[0] == 200
            half.send(post(running, CHAT)[:50])
            busy.send(post(running, STREAM.replace(b"good", b"slow")) + post(running, CHAT))
            got = await asyncio.wait_for(busy.reader.readuntil(b"word0"), 20)
            hurry = asyncio.Event()
            ending = spawn(running.gateway.drain(hurry), name="drain")
            await running.gateway.lifecycle.stopping.wait()
            for client in (idle, fresh):
                client.send(post(running, CHAT))
                assert await client.error() == (503, "shutting_down")
            assert not ending.done()
            await asyncio.to_thread(gate.write_bytes, b"")
            got += await asyncio.wait_for(busy.reader.readuntil(b"\r\n0\r\n\r\n"), 20)
            assert got.count(b"HTTP/1.1 ") == 1
            assert b"[DONE]" in got
            assert await busy.error() == (503, "shutting_down")
            async with asyncio.timeout(20):
                await ending
            leaving = spawn(stack.aclose(), name="leave")
            for client in (idle, busy, half, fresh):
                with subtests.test(f"{client!r:.80}"):
                    assert await client.closed() == b""
        async with asyncio.timeout(20):
            await leaving


async def test_complete_answer_still_goes_out_when_the_gateway_stops(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        models = {"good": fake_model(tmp_path, chunks=500)}
        running = await stack.enter_async_context(make_gateway(models))
        with small(running) as taking:
            front = await narrow(running, taking)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(taking, post(running, STREAM))
            await eventually(lambda: bool(running.gateway.accounting.recent))  # that is all of it
            assert front.transport.get_write_buffer_size()
            leaving = spawn(stack.aclose(), name="leave")
            got = b""
            async with asyncio.timeout(20):
                while data := await loop.sock_recv(taking, 1 << 20):
                    got += data
                await leaving
    ((status, _, body),) = answers_in(got)
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")


async def test_gateway_that_stops_waits_for_a_slow_reader(make_gateway: MakeGateway) -> None:
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(make_gateway({}))
        with small(running) as taking:
            front = await narrow(running, taking)
            loop = asyncio.get_running_loop()
            refused = post(running, b"{").replace(b"Bearer llm", b"Bearer x")
            sending = spawn(loop.sock_sendall(taking, refused * 300), name="send")
            await eventually(lambda: front.flow.full)
            ending = spawn(running.gateway.drain(asyncio.Event()), name="drain")
            await running.gateway.lifecycle.stopping.wait()
            got = b""
            async with asyncio.timeout(20):
                while front.flow.full:
                    assert not ending.done()
                    got += await loop.sock_recv(taking, 4096)
                while not ending.done():
                    got += await loop.sock_recv(taking, 4096)
            await cancel_and_wait(sending)
            leaving = spawn(stack.aclose(), name="leave")
            async with asyncio.timeout(20):
                while data := await loop.sock_recv(taking, 1 << 20):
                    got += data
                await leaving
    assert {status for status, _, _ in answers_in(got)} <= {401, 429}


async def test_gateway_that_stops_waits_for_an_answer_made_meanwhile(
    make_gateway: MakeGateway,
) -> None:
    asked, go = asyncio.Event(), asyncio.Event()
    body = json.dumps({"choices": [], "padding": "x" * 200_000}).encode()

    async def answer(request: Asked) -> None:
        asked.set()
        await go.wait()
        framing = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        request.writer.write(b"HTTP/1.1 200 OK\r\n" + framing + body)

    async with RemoteServer() as there, contextlib.AsyncExitStack() as stack:
        there.answers["/v1/chat/completions"] = answer
        running = await stack.enter_async_context(make_gateway({"good": {"url": there.url}}))
        with small(running) as taking:
            front = await narrow(running, taking)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(taking, post(running, CHAT))
            lifecycle = running.gateway.lifecycle
            async with asyncio.timeout(20):
                await asked.wait()
                ending = spawn(running.gateway.drain(asyncio.Event()), name="drain")
                await eventually(lambda: lifecycle.is_awaited)
                go.set()
                await eventually(lambda: front.flow.full)
                got = b""
                while front.flow.full:
                    got += await loop.sock_recv(taking, 4096)
                    assert not front.flow.full or not ending.done()
                await ending
            leaving = spawn(stack.aclose(), name="leave")
            async with asyncio.timeout(20):
                while data := await loop.sock_recv(taking, 1 << 20):
                    got += data
                await leaving
    ((status, _, answered),) = answers_in(got)
    assert status == 200
    assert len(answered) >= len(body)


async def test_second_signal_cuts_what_runs(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        models = {"hangs": fake_model(tmp_path, hang=1, record=tmp_path / "record")}
        running = await stack.enter_async_context(make_gateway(models))
        async with connected(running) as client:
            client.send(post(running, CHAT.replace(b"good", b"hangs")))
            await eventually((tmp_path / "record").exists)
            hurry = asyncio.Event()
            hurry.set()
            async with asyncio.timeout(20):
                await running.gateway.drain(hurry)
                await stack.aclose()
            head, _, body = (await client.closed()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert json.loads(body)["error"]["code"] == "shutting_down"


# --- what fails within an answer -----------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?x=1"])
async def test_failure_behind_the_head_is_no_clean_end(
    make_gateway: MakeGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    query: str,
) -> None:
    models = {"good": fake_model(tmp_path, start_delay=1, garbage=1)}
    async with make_gateway(models, limits={"heartbeat": "0.1s"}) as running:
        target = f"/v1/chat/completions{query}".encode()
        request = post(running, STREAM).replace(b"/v1/chat/completions", target)
        async with connected(running) as client:  # the stream was opened while the model loaded
            client.send(request + post(running, CHAT))
            got = await client.closed()
            assert got.count(b"HTTP/1.1 ") == 1
            assert b"is not HTTP/1.1" in got
            assert not got.endswith(b"\r\n0\r\n\r\n")
        assert not [r.getMessage() for r in caplog.records if r.exc_info]

        def broken(*_: object) -> None:
            raise RuntimeError("a bug of ours")

        # What can't happen, happens once the head has gone out.
        monkeypatch.setattr(relay, "pump", broken)
        await running.gateway.scheduler.unload("good")
        async with connected(running) as client:
            client.send(request.replace(b'"stream"', b'"seed": 1, "stream"'))
            await client.closed()
        model = running.gateway.library.catalog.models["good"]
        assert isinstance(model, LocalModel)
        model.env["FAKE_GARBAGE"] = ""  # type: ignore[index]  # as if models.json said so
        async with connected(running) as client:
            client.send(request + post(running, CHAT))
            got = await client.closed()
            assert got.count(b"HTTP/1.1 ") == 1
            assert not got.endswith(b"0\r\n\r\n")
        assert "a bug of ours" in caplog.text
        await eventually(lambda: nothing_is_left(running))


@pytest.mark.parametrize("query", ["", "?x=1"])
async def test_stream_that_breaks_over_tls_is_no_clean_end(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    """Its connection is closed by whoever breaks it off, and once more behind the answer."""
    tls, trusting = with_tls(tmp_path)
    async with make_gateway({"good": fake_model(tmp_path, die_after=3)}, tls=tls) as running:
        target = f"/v1/chat/completions{query}".encode()
        async with connected(running, ssl=trusting) as client:
            client.send(post(running, STREAM).replace(b"/v1/chat/completions", target))
            got = await client.closed()
        assert b"word2" in got
        assert not got.endswith(b"\r\n0\r\n\r\n")
        await eventually(lambda: nothing_is_left(running))
    gc.collect()  # a task that failed and that nobody awaits says so when it goes
    assert not [r.getMessage() for r in caplog.records if r.exc_info]
