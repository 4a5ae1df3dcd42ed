"""Clients that send no more: those that wait get their answer, those that are gone end it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.backend import State
from gateway.tasks import spawn
from tests.harness import MakeGateway, Running, eventually, fake_model
from tests.wire import CHAT, Client, connected, head, post, with_tls

pytestmark = pytest.mark.slow

STREAM = CHAT[:-1] + b', "stream": true}'
DOORS = (b"/v1/chat/completions ", b"/v1/chat/completions?x=1 ")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def asks(running: Running, model: str, door: bytes, body: bytes = CHAT) -> bytes:
    whole = post(running, body.replace(b'"good"', f'"{model}"'.encode()))
    return whole.replace(DOORS[0], door)


def events(body: bytes) -> bytes:
    """The inside of a chunked body that is complete."""
    inside = b""
    while True:
        digits, _, body = body.partition(b"\r\n")
        assert re.fullmatch(b"[0-9a-f]{1,16}", digits), digits
        size = int(digits, 16)
        inside, body = inside + body[:size], body[size + 2 :]
        if not size:
            assert body == b""
            return inside


def all_at_rest(running: Running) -> bool:
    connections = running.gateway.connections
    return not (running.gateway.scheduler.in_flight or waits(running) or connections.count)


def waits(running: Running) -> int:
    return sum(status.queued for status in running.gateway.scheduler.status())


# --- who waits -----------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_who_has_said_all_gets_the_answer(
    make_gateway: MakeGateway, tmp_path: Path, door: bytes
) -> None:
    models = {
        "quick": fake_model(tmp_path),
        "loads": fake_model(tmp_path, start_delay=1.5),
        "loads-streaming": fake_model(tmp_path, start_delay=1.5, chunks=5),
        "talks": fake_model(tmp_path, chunks=10, pause=0.15),
        "quiet": fake_model(tmp_path, chunks=2, pause=2.5),
    }
    limits = {"heartbeat": "500ms"}
    async with make_gateway(models, limits=limits) as running:

        async def whole(model: str) -> None:
            async with connected(running) as client:
                client.send(asks(running, model, door))
                client.writer.write_eof()
                got = (await client.closed()).replace(CONTINUE, b"")
                before, _, body = got.partition(b"\r\n\r\n")
                assert before.startswith(b"HTTP/1.1 200 OK\r\n")
                assert json.loads(body)["choices"][0]["message"]["content"] == "fake answer"

        async def stream(model: str, count: int) -> None:
            async with connected(running) as client:
                client.send(asks(running, model, door, STREAM))
                client.writer.write_eof()
                got = (await client.closed()).replace(CONTINUE, b"")
                before, _, body = got.partition(b"\r\n\r\n")
                assert before.startswith(b"HTTP/1.1 200 OK\r\n")
                inside = events(body)
                assert inside.count(b"word") == count
                assert inside.endswith(b"data: [DONE]\n\n")

        await asyncio.gather(
            *[whole(model) for model in ("quick", "loads")],
            *[stream("loads-streaming", 5), stream("talks", 10), stream("quiet", 2)],
        )
        await eventually(lambda: all_at_rest(running))


@pytest.mark.parametrize("door", DOORS)
async def test_all_that_was_asked_is_answered(
    make_gateway: MakeGateway, tmp_path: Path, door: bytes, subtests: pytest.Subtests
) -> None:
    models = {"good": fake_model(tmp_path, start_delay=0.5)}
    async with make_gateway(models) as running:
        one = asks(running, "good", door)
        for rest, statuses in (
            (one + one, [b"200"] * 3),
            (head(running, "GET /v1/models HTTP/1.1"), [b"200"] * 2),
            (head(running, "GET /nothing HTTP/1.1"), [b"200", b"404"]),
            (one[:100], [b"200"]),  # it will never be whole
            (one[:-1], [b"200"] if door == DOORS[0] else [b"200", b"400"]),
            (b"no HTTP\r\n\r\n", [b"200", b"400"]),
        ):
            with subtests.test(f"{rest!r:.80}"):
                if rest == one[:-1]:
                    # The first is to be unanswered when the client ends: with nothing whole left to
                    # answer, the end of a message that is cut short is the connection's.
                    await running.gateway.scheduler.unload("good")
                async with connected(running) as client:
                    client.send(one)
                    await asyncio.sleep(0)
                    client.send(rest)
                    client.writer.write_eof()
                    got = (await client.closed()).replace(CONTINUE, b"")
                    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", got) == statuses, rest
        await eventually(lambda: all_at_rest(running))


def test_a_real_client_reads_over_it(demo: Any) -> None:
    """Python's http.client, which takes any other 1xx for the answer."""
    host, _, port = demo.url.partition("://")[2].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    body = {"model": "SmolLM2-135M", "messages": [{"role": "user", "content": "Hi"}]}
    body |= {"max_tokens": 60, "ignore_eos": True}
    for stream in (False, True):
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body | {"stream": stream}),
            {"Authorization": f"Bearer {demo.key}"},
        )
        connection.sock.shutdown(socket.SHUT_WR)
        answer = connection.getresponse()
        assert answer.status == 200
        text = answer.read().decode()
        assert text.endswith("data: [DONE]\n\n") if stream else json.loads(text)["choices"]
        connection.close()


# --- who is gone ---------------------------------------------------------------------------


def hang_ups(tmp_path: Path) -> dict[str, Any]:
    return {
        "hangs": fake_model(tmp_path, hang=1),
        "talks": fake_model(tmp_path, chunks=100_000, pause=0.05),
        "quiet": fake_model(tmp_path, chunks=100_000, pause=600),
        "loads": fake_model(tmp_path, never_healthy=1),
    }


async def to_be_hung_up(running: Running, client: Client, model: str, request: bytes) -> None:
    """Send it, and wait until it is under way."""
    client.send(request)
    if model in ("talks", "quiet") and b'"stream"' in request:
        async with asyncio.timeout(20):
            await client.reader.readuntil(b"word0")
        return
    scheduler = running.gateway.scheduler
    await eventually(
        lambda: (
            bool(scheduler.in_flight)
            if model != "loads"
            else any(s.state is State.STARTING and s.queued for s in scheduler.status())
        )
    )


CASES = [
    *itertools.product(["hangs", "loads"], [CHAT, STREAM]),
    *itertools.product(["talks", "quiet"], [STREAM]),
]


@pytest.mark.parametrize("door", DOORS)
async def test_who_closes_ends_it_at_once(
    make_gateway: MakeGateway, tmp_path: Path, door: bytes
) -> None:
    """With an ordinary ``close()``: the other side gets a FIN, as of who only has said all."""
    async with make_gateway(hang_ups(tmp_path)) as running:
        for model, body in CASES:
            async with connected(running) as client:
                await to_be_hung_up(running, client, model, asks(running, model, door, body))
                client.writer.close()
                await eventually(lambda: all_at_rest(running), seconds=2)


@pytest.mark.parametrize("door", DOORS)
async def test_closing_after_a_half_close_frees_the_slot(
    make_gateway: MakeGateway, tmp_path: Path, door: bytes, subtests: pytest.Subtests
) -> None:
    async with make_gateway(hang_ups(tmp_path)) as running:
        for model, body in CASES:
            with subtests.test(f"{model!r:.80}"):
                async with connected(running) as client:
                    await to_be_hung_up(running, client, model, asks(running, model, door, body))
                    client.writer.write_eof()
                    await asyncio.sleep(0.6)
                    assert not all_at_rest(running)
                    client.writer.close()
                    await eventually(lambda: all_at_rest(running), seconds=5)


@contextlib.asynccontextmanager
async def passing_on(running: Running) -> AsyncIterator[int]:
    """A port that leads to the gateway as Docker's does: a FIN is passed on, and no more told."""
    host, _, port = running.url.partition("://")[2].rpartition(":")

    async def one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(one_way(reader, there), one_way(back, writer))
        finally:
            writer.close()
            there.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_half_close_through_a_relay_still_gets_the_answer(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = hang_ups(tmp_path) | {"slow": fake_model(tmp_path, start_delay=1)}
    async with make_gateway(models) as running, passing_on(running) as port:

        async def come() -> Client:
            return Client(*await asyncio.open_connection("127.0.0.1", port))

        for model, body in CASES:
            client = await come()
            await to_be_hung_up(running, client, model, asks(running, model, DOORS[0], body))
            client.writer.close()
            await eventually(lambda: all_at_rest(running), seconds=8)
        client = await come()
        client.send(asks(running, "slow", DOORS[0]))
        client.writer.write_eof()
        assert (await client.closed()).replace(CONTINUE, b"").startswith(b"HTTP/1.1 200 ")
        client.writer.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_where_nothing_can_be_asked_a_fin_is_the_end(
    make_gateway: MakeGateway, tmp_path: Path, tls: bool
) -> None:
    settings: dict[str, Any] = {}
    options: dict[str, Any] = {}
    version = b"HTTP/1.1" if tls else b"HTTP/1.0"
    if tls:
        settings["tls"], options["ssl"] = with_tls(tmp_path)
    async with make_gateway(hang_ups(tmp_path), **settings) as running:
        for door, (model, body) in itertools.product(DOORS, CASES[:4]):
            async with connected(running, **options) as client:
                request = asks(running, model, door, body).replace(b"HTTP/1.1", version)
                await to_be_hung_up(running, client, model, request)
                if tls:
                    client.writer.close()
                else:
                    client.writer.write_eof()
                await eventually(lambda: all_at_rest(running), seconds=2)


async def test_cancelled_real_client_frees_the_slot(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway(hang_ups(tmp_path)) as running, running.openai() as ours:
        for model, body in CASES:
            asked = spawn(
                ours.chat.completions.create(**json.loads(body) | {"model": model}), name=model
            )
            if model in ("talks", "quiet"):
                stream = await asked
                await anext(aiter(stream))
                await stream.close()
            else:
                await eventually(
                    lambda: bool(running.gateway.scheduler.in_flight or waits(running))
                )
                asked.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asked
            await eventually(
                lambda: not (running.gateway.scheduler.in_flight or waits(running)), seconds=2
            )


@pytest.mark.skipif(sys.platform != "linux", reason="curl's SIGTERM")
async def test_killed_curl_frees_the_slot(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway(hang_ups(tmp_path)) as running:
        for model, body in CASES[:2]:
            said = body.replace(b'"good"', f'"{model}"'.encode()).decode()
            process = await asyncio.create_subprocess_exec(
                *("curl", "-sN", "-H", f"Authorization: Bearer {running.key}", "-d", said),
                running.url + "/v1/chat/completions",
            )
            await eventually(lambda: bool(running.gateway.scheduler.in_flight))
            process.kill()
            await process.wait()
            await eventually(lambda: all_at_rest(running), seconds=2)
