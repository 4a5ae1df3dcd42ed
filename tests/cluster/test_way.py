"""A node whose front can't be reached is not used, though Ray reaches it, and it is said why."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gateway.cluster.ca import Authority, client_context, server_context, server_name
from gateway.cluster.front import Front
from gateway.cluster.link import Unreachable
from gateway.cluster.way import try_way
from gateway.errors import Unavailable
from gateway.secret import Secret
from gateway.upstream import TcpAddress, UpstreamRequest
from tests.cluster.conftest import Attic
from tests.cluster.machines import Machines, gateway_of, up
from tests.scripted import Box


@pytest.fixture
async def machines(folder: Path) -> AsyncIterator[Machines]:
    made = Machines(Box(folder))
    yield made
    await made.close()


def front_of(attic: Attic) -> TcpAddress:
    return TcpAddress("127.0.0.1", attic.port, attic.context, "", server_name("attic"), Secret(""))


async def test_the_way_to_a_front_is_found_and_leaves_nothing_there(attic: Attic) -> None:
    await try_way(front_of(attic))
    async with asyncio.timeout(3):
        while attic.front.outside:
            await asyncio.sleep(0.01)  # it tells nobody


async def test_who_tries_the_way_gets_no_further(attic: Attic) -> None:
    reader, writer = await attic.dial()
    writer.write(b"LLM-GATEWAY/1 \n")
    assert await reader.readline() == b"OK\n"
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert (await reader.readline()).startswith(b"NO it knows no such key")


async def test_a_closed_port_is_said_with_what_to_do(attic: Attic) -> None:
    port = closed_port()
    with pytest.raises(
        Unreachable, match=rf"127\.0\.0\.1:{port} cannot be reached from here \("
    ) as no:
        await try_way(front_of(attic)._replace(port=port))
    assert "--host of `node join`" in no.value.message
    with pytest.raises(Unreachable, match=rf"\[::1\]:{port} cannot"):
        await try_way(front_of(attic)._replace(host="::1", port=port))


async def test_certificates_that_are_refused_are_said(attic: Attic, authority: Authority) -> None:
    old = authority.issue("gateway", server=False, client=True, days=-0.5)
    with pytest.raises(Unreachable, match="are the clocks of both machines right"):
        await try_way(front_of(attic)._replace(ssl_context=client_context(old)))
    late = authority.issue(server_name("attic"), server=True, client=False, days=-0.5)
    front = Front(server_context(late))
    port = await front.listen("127.0.0.1")
    with pytest.raises(Unreachable, match="certificate has expired"):
        await try_way(front_of(attic)._replace(port=port))
    await front.close()


async def test_a_node_is_used_as_soon_as_there_is_a_way(
    machines: Machines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As with a firewall before its port, which is opened later."""
    inside: list[int] = []
    outside = closed_port()

    async def listen(front: Front, host: str) -> int:
        inside.append(await LISTEN(front, host))
        return outside

    monkeypatch.setattr(Front, "listen", listen)
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=tmp_path) as (scheduler, cluster):
        with pytest.raises(Unavailable, match=f"he node attic is away .*127.0.0.1:{outside} can"):
            await scheduler.load("a")
        assert not machines.box.starts()
        assert [one.up for one in cluster.report()] == [False]
        relay = await asyncio.start_server(relay_to(inside[0]), "127.0.0.1", outside)
        await up(cluster, "attic")
        with await scheduler.lease("a") as lease:
            request = UpstreamRequest("GET", "/health")
            assert (await lease.backend.pool.fetch(request, timeout=10)).status == 200
        relay.close()
    told = [record.message for record in caplog.records if "can't be used" in record.message]
    assert len(told) == 1


LISTEN = Front.listen


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def relay_to(
    port: int,
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    return relay
