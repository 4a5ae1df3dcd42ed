"""A model with several remote servers, and remote models under the scheduler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.backend import State
from gateway.backends.decision import SchedulingLimits
from gateway.backends.scheduler import Scheduler
from gateway.backends.server import Server, Tempo
from gateway.models.model import Model
from gateway.tasks import spawn
from gateway.upstream import (
    ConnectionLost,
    HeadTimeout,
    UpstreamError,
    UpstreamRequest,
    may_retry,
)
from tests.backends.conftest import MakeRemote
from tests.remote_backends import CHAT, Sink, failure, spec_of
from tests.remote_server import CLOSING, RemoteServer, hang_up, hold
from tests.scripted import Box, catalog_of, until

# --- several servers -----------------------------------------------------------------------


async def test_the_server_with_the_fewest_requests_gets_the_next(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    one, two = servers
    for server in servers:
        server.answers[CHAT] = hold
    backend = make_remote(one, two)
    await backend.ensure_ready()
    await backend.until(lambda: backend.up() == [True, True])
    sent = []
    for count in range(1, 7):
        sent.append(await backend.pool.send(UpstreamRequest("POST", CHAT, body=b"{}"), Sink()))
        loads = sorted(server.in_flight for server in backend.servers)
        assert loads == [count // 2, count - count // 2]
    await one.until(lambda: len(one.asked) == 3)
    await two.until(lambda: len(two.asked) == 3)
    busy = one if backend.servers[0].in_flight else two
    for exchange in sent[::2]:
        exchange.abort()  # all on one server: the next three go there
    assert sorted(server.in_flight for server in backend.servers) == [0, 3]
    again = [
        await backend.pool.send(UpstreamRequest("POST", CHAT, body=b"{}"), Sink()) for _ in range(3)
    ]
    assert [server.in_flight for server in backend.servers] == [3, 3]
    for exchange in (*sent, *again):
        exchange.abort()
    assert busy in servers


async def test_server_is_watched_on_after_what_nobody_expected(
    servers: list[RemoteServer], caplog: pytest.LogCaptureFixture
) -> None:
    there = servers[0]
    told: asyncio.Queue[bool | None] = asyncio.Queue()

    def changed(server: Server) -> None:
        told.put_nowait(server.up)
        if server.up is False:
            raise ValueError("what nobody expected")

    (endpoint,) = spec_of(there).endpoints
    server = Server(
        endpoint,
        None,
        None,
        name="m",
        max_connections=1,
        head_timeout=5,
        tempo=Tempo(),
        changed=changed,
    )
    async with asyncio.timeout(20):
        assert await told.get() is True
        await there.stop()
        server.look_again()
        assert await told.get() is False
        await there.start()
        assert await told.get() is True
    await server.close()
    assert "begins anew" in caplog.text


async def test_idle_servers_take_turns(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    backend = make_remote(*servers)
    await backend.ensure_ready()
    await backend.until(lambda: backend.up() == [True, True])
    for _ in range(4):
        await backend.ask()
    assert [len(server.asked) for server in servers] == [2, 2]


async def test_one_of_two_is_enough_and_the_other_is_tried_again(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    one, two = servers
    await two.stop()
    backend = make_remote(one, two)
    await backend.ensure_ready()
    await backend.until(lambda: backend.servers[1].error is not None)
    assert backend.servers[1].error == "the connection is refused"
    for _ in range(3):
        assert (await backend.ask()).status == 200
    assert len(one.asked) == 3
    await two.start()
    await backend.until(lambda: backend.up() == [True, True])
    await backend.ask()
    await backend.ask()
    assert len(two.asked) == 1


async def test_a_request_that_could_not_be_sent_goes_to_another(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    one, two = servers
    backend = make_remote(one, two)
    await backend.ensure_ready()
    await backend.until(lambda: backend.up() == [True, True])
    await one.stop()
    # Connections from the looks may still be there: a request on one that is dead is sent again.
    for _ in range(3):
        sink = Sink()
        await backend.pool.send(UpstreamRequest("POST", CHAT, body=b"{}"), sink)
        with contextlib.suppress(UpstreamError):
            assert (await sink.done).status == 200
    await backend.until(lambda: backend.up() == [False, True])
    for _ in range(3):
        assert (await backend.ask()).status == 200
    assert backend.state is State.READY


async def test_a_request_that_was_sent_is_not_sent_again(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    servers[0].answers.update(CLOSING)
    backend = make_remote(servers[0])
    await backend.ensure_ready()
    servers[0].answers[CHAT] = hang_up
    with pytest.raises(ConnectionLost) as caught:
        await backend.ask()
    assert len(servers[0].asked) == 1
    assert not may_retry(caught.value, body_at_hand=True)


async def test_while_all_are_down_each_is_tried(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    one, two = servers
    backend = make_remote(one, two)
    await backend.ensure_ready()
    await backend.until(lambda: backend.up() == [True, True])
    for server in servers:
        await server.stop()
    for _ in range(2):
        with contextlib.suppress(UpstreamError):
            await backend.ask()
    await backend.until(lambda: backend.state is State.BACKOFF)
    assert (backend.serving, backend.resident, backend.deaths) == (True, True, 1)
    with pytest.raises(UpstreamError) as caught:
        await backend.ask()
    assert caught.value.status == 502
    assert caught.value.message == (
        "no server of 'm' can be used: m (server 1): the connection is refused; "
        "m (server 2): the connection is refused"
    )
    assert not may_retry(caught.value, body_at_hand=True)
    error = await failure(backend)
    assert "no server of 'm'" in error.message
    await two.start()
    await backend.until(lambda: backend.state is State.READY)
    assert (await backend.ask()).status == 200


async def test_a_server_that_breaks_down_finishes_what_it_answers(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    server = servers[0]
    finish = asyncio.Event()

    async def slow(asked: Any) -> None:
        await finish.wait()
        asked.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    server.answers[CHAT] = slow
    backend = make_remote(server)
    await backend.ensure_ready()
    running = spawn(backend.ask(), name="ask")
    await server.until(lambda: len(server.asked) == 1)
    server.answers["/health"] = (503, {})
    await backend.pool.look_again(20)
    assert (backend.state, backend.servers[0].error) == (
        State.BACKOFF,
        "it answered 503 to GET /health ({})",
    )
    finish.set()
    assert (await running).status == 200
    # It may take requests all the same: what it answers is for the client to read.
    server.answers[CHAT] = (503, {"error": {"message": "loading"}})
    assert (await backend.ask()).status == 503
    server.answers["/health"] = (200, {})
    await backend.ensure_ready()
    assert backend.state is State.READY


async def test_a_server_that_refuses_the_key_later_gets_no_requests(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    backend = make_remote(servers[0], key="sk-1")
    await backend.ensure_ready()
    servers[0].answers["/v1/models"] = (401, {})
    await backend.pool.look_again(20)
    with pytest.raises(UpstreamError, match="it refuses the key"):
        await backend.ask()
    assert servers[0].asked == []


async def test_answer_that_does_not_begin_is_a_504(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    servers[0].answers[CHAT] = hold
    backend = make_remote(servers[0], timeout="200ms")
    await backend.ensure_ready()
    sink = Sink()
    await backend.pool.send(UpstreamRequest("POST", CHAT, body=b"{}"), sink)
    with pytest.raises(HeadTimeout, match=r"m sent no answer within 0\.2 s") as caught:
        await sink.done
    assert caught.value.status == 504


# --- the scheduler -------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def scheduling(box: Box, *specs: Model, **options: Any) -> AsyncIterator[Scheduler]:
    environ = {"environ": options.pop("environ")} if "environ" in options else {}
    scheduler = Scheduler(
        catalog_of(*specs),
        box.environment(**environ),
        options.pop("limits", SchedulingLimits()),
        queue_size=100,
        queue_timeout=options.pop("queue_timeout", 30),
        **options,
    )
    try:
        yield scheduler
    finally:
        await scheduler.close()
    assert not [s for s in scheduler.status() if s.state is not State.STOPPED]


async def test_leases_are_counted_and_queued(box: Box, servers: list[RemoteServer]) -> None:
    async with scheduling(box, spec_of(servers[0], parallel=2)) as scheduler:
        first, second = await scheduler.lease("m"), await scheduler.lease("m")
        third = spawn(scheduler.lease("m"), name="third")
        await until(scheduler, lambda: scheduler.status()[0].queued == 1)
        status = scheduler.status()[0]
        assert (status.in_flight, status.slots, status.memory, status.pid) == (2, 2, None, None)
        assert [server.url for server in status.servers] == [servers[0].url]
        first.release()
        (await third).release()
        second.release()


async def test_it_is_loaded_before_the_memory_of_this_machine_is_known(
    box: Box, servers: list[RemoteServer]
) -> None:
    async with scheduling(box, spec_of(servers[0]), memory_known=False) as scheduler:
        await scheduler.load("m")
        assert scheduler.loaded() == ["m"]


async def test_it_neither_goes_for_others_nor_makes_them_go(
    box: Box, servers: list[RemoteServer]
) -> None:
    local = box.spec("local")
    async with scheduling(box, local, spec_of(servers[0]), limits=SchedulingLimits(1)) as scheduler:
        await scheduler.load("local")
        await scheduler.load("m")
        assert scheduler.loaded() == ["local", "m"]
        assert len(box.starts()) == 1
        await scheduler.unload("m")
        assert scheduler.loaded() == ["local"]


async def test_a_load_that_fails_fails_at_once_and_the_next_request_tries_again(
    box: Box, servers: list[RemoteServer]
) -> None:
    await servers[0].stop()
    async with scheduling(box, spec_of(servers[0])) as scheduler:
        for _ in range(6):
            with pytest.raises(UpstreamError, match="the connection is refused"):
                await scheduler.lease("m")
        await servers[0].start()
        (await scheduler.lease("m")).release()


async def test_loading_one_that_is_down_looks_and_says_so(
    box: Box, servers: list[RemoteServer]
) -> None:
    async with scheduling(box, spec_of(servers[0])) as scheduler:
        await scheduler.load("m")
        servers[0].answers["/v1/models"] = (500, {})
        backend = scheduler.backend("m")
        pool: Any = backend.pool
        await pool.look_again(20)
        assert scheduler.loaded() == []
        with pytest.raises(UpstreamError, match="answered 500"):
            await scheduler.load("m")
        servers[0].answers["/v1/models"] = (200, {})
        await scheduler.load("m")
        assert scheduler.loaded() == ["m"]


async def test_a_model_may_become_remote_and_local_again(
    box: Box, servers: list[RemoteServer]
) -> None:
    away, here = spec_of(servers[0]), box.spec("m")
    async with scheduling(box, here) as scheduler:
        lease = await scheduler.lease("m")
        assert lease.backend.pid is not None
        scheduler.apply(catalog_of(away))
        waiting = spawn(scheduler.lease("m"), name="waits for the new one")
        lease.release()
        with await waiting as moved:
            assert (
                await moved.backend.pool.fetch(UpstreamRequest("POST", CHAT), timeout=20)
            ).status == 200
            assert len(servers[0].asked) == 1
            scheduler.apply(catalog_of(here))
            waiting = spawn(scheduler.lease("m"), name="waits for the old one")
        with await waiting as back:
            assert back.backend.pid is not None
        assert len(box.starts()) == 2


async def test_its_key_is_not_inherited_by_processes_of_this_machine(
    box: Box, servers: list[RemoteServer]
) -> None:
    environ = {**box.environment().environ, "FIRST_KEY": "one", "NEXT_KEY": "two", "OTHER": "x"}
    here, away = box.spec("here"), spec_of(servers[0], key="env:FIRST_KEY")

    async def seen(scheduler: Scheduler) -> set[str]:
        with await scheduler.lease("here") as lease:
            lines = Path(f"/proc/{lease.backend.pid}/environ").read_text().split("\0")
        await scheduler.unload("here")
        return {line.partition("=")[0] for line in lines} & {"FIRST_KEY", "NEXT_KEY", "OTHER"}

    async with scheduling(box, here, away, environ=environ) as scheduler:
        with await scheduler.lease("m") as lease:
            await lease.backend.pool.fetch(UpstreamRequest("POST", CHAT), timeout=20)
        assert servers[0].asked[-1].headers["Authorization"] == "Bearer one"
        assert await seen(scheduler) == {"NEXT_KEY", "OTHER"}
        scheduler.apply(catalog_of(here, spec_of(servers[0], key="env:NEXT_KEY")))
        assert await seen(scheduler) == {"OTHER"}


async def test_a_changed_url_is_taken_over_and_a_gone_entry_lets_go(
    box: Box, servers: list[RemoteServer]
) -> None:
    one, two = servers
    async with scheduling(box, spec_of(one)) as scheduler:
        (await scheduler.lease("m")).release()
        scheduler.apply(catalog_of(spec_of(two)))
        with await scheduler.lease("m") as lease:
            await lease.backend.pool.fetch(UpstreamRequest("POST", CHAT), timeout=20)
            assert (len(one.asked), len(two.asked)) == (0, 1)
            backend = lease.backend
            scheduler.apply(catalog_of())
        await until(scheduler, lambda: not backend.resident)
