"""Servers elsewhere that are down, busy or silent."""

from __future__ import annotations

import asyncio

from gateway.tasks import spawn
from tests.api.remote.entries import CHAT, entry
from tests.harness import MakeGateway
from tests.remote_server import CLOSING, Asked, RemoteServer, hang_up, hold
from tests.scripted import until


async def test_a_server_that_is_down_is_a_502_that_hides_where_it_is(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    await server.stop()
    async with make_gateway({"m": entry(server)}) as running:
        for _ in range(2):
            status, answer = await running.chat("m")
            message = "the server of 'm' cannot be used: the connection is refused"
            assert (status, answer["error"]["message"]) == (502, message)
            assert answer["error"]["code"] == "backend_error"
        _, listed = await running.json("GET", "/v1/models")
        assert listed["data"][0]["status"] == {"value": "failed", "failed": True}
        await server.start()
        assert (await running.chat("m"))[0] == 200


async def test_a_request_goes_to_the_server_that_is_left(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    async with RemoteServer() as other, make_gateway({"m": entry(server, other)}) as running:
        assert (await running.chat("m"))[0] == 200
        await server.stop()
        async with running.request("GET", "/ping"):
            pass  # that the connection has ended has been read by now
        for _ in range(4):
            assert (await running.chat("m"))[0] == 200
        await other.stop()
        for _ in range(3):  # one may be sent on a connection that is dead
            status, answer = await running.chat("m")
            assert status == 502
        assert "no server of 'm' can be used" in answer["error"]["message"]
        await server.start()
        assert (await running.chat("m"))[0] == 200


async def test_a_server_that_nobody_has_looked_at_yet_is_better_than_none(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    async with RemoteServer() as slow, make_gateway({"m": entry(server, slow)}) as running:
        slow.answers["/v1/models"] = hold
        for _ in range(2):  # it is ready by the first; the other is left alone as long as it is up
            assert (await running.chat("m"))[0] == 200
        assert (len(server.asked), len(slow.asked)) == (2, 0)
        await server.stop()
        assert (await running.chat("m"))[0] == 200
        assert len(slow.asked) == 1


async def test_a_request_that_was_taken_is_not_given_to_another(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    async with RemoteServer() as other, make_gateway({"m": entry(server, other)}) as running:
        for one in (server, other):
            one.answers[CHAT] = hang_up
            one.answers.update(CLOSING)
        status, answer = await running.chat("m")
        assert (status, answer["error"]["code"]) == (502, "backend_error")
        assert "went away before it answered" in answer["error"]["message"]
        assert len(server.asked) + len(other.asked) == 1


async def test_an_answer_that_does_not_begin_is_a_504(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    server.answers[CHAT] = hold
    async with make_gateway({"m": entry(server, timeout="300ms")}) as running:
        status, answer = await running.chat("m")
        assert (status, answer["error"]["code"]) == (504, "backend_timeout")
        assert answer["error"]["message"] == "m sent no answer within 0.3 s"


async def test_requests_over_parallel_wait_here(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    go = asyncio.Event()

    async def slow(asked: Asked) -> None:
        await go.wait()
        asked.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    server.answers[CHAT] = slow
    async with make_gateway({"m": entry(server, parallel=2)}) as running:
        asking = [spawn(running.chat("m"), name="ask") for _ in range(5)]
        scheduler = running.gateway.scheduler
        await until(scheduler, lambda: scheduler.status()[0].queued == 3)
        await server.until(lambda: len(server.asked) == 2)
        go.set()
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 5
