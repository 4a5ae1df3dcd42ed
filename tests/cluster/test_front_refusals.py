"""The front: who is refused, and what that tells whom."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import pytest

from gateway.cluster import front as front_module
from gateway.cluster import listener as listener_module
from gateway.cluster.ca import (
    Authority,
    Credentials,
    client_context,
    server_context,
    server_name,
)
from gateway.secret import Secret
from gateway.upstream import ConnectFailed, UpstreamRequest
from tests.cluster.conftest import Attic
from tests.cluster.servers import Held, answers, closed, echoes, pool_for


async def turned_away(reader: asyncio.StreamReader) -> bool:
    """Whether the other end closes, and says no more than why."""
    try:
        answer = await reader.read()
    except (ConnectionError, ssl.SSLError):
        return True
    return answer == b"" or answer.startswith(b"NO ")


async def test_a_wrong_key_is_refused_before_anything_is_asked(attic: Attic) -> None:
    held = Held()
    door = await attic.serve(held)
    address = attic.address(door)._replace(key=Secret("0" * 64))
    pool = pool_for(address)
    for _ in range(2):
        with pytest.raises(ConnectFailed, match="it knows no such key"):
            await pool.fetch(UpstreamRequest("GET", "/"), timeout=5)
    await pool.close()
    assert held.came.empty()
    assert door.connections == 0


async def test_without_a_certificate_of_the_cluster_nobody_comes_in(
    attic: Attic, authority: Authority, other_authority: Authority
) -> None:
    held = Held()
    door = await attic.serve(held)
    stranger = other_authority.issue("gateway", server=False, client=True)
    theirs = client_context(
        Credentials(stranger.certificate, stranger.private_key, authority.pem, stranger.not_after)
    )
    nobody = ssl.create_default_context(cadata=authority.pem.decode())
    for context in (theirs, nobody):
        pool = pool_for(attic.address(door)._replace(ssl_context=context))
        with pytest.raises(ConnectFailed):
            await pool.fetch(UpstreamRequest("GET", "/"), timeout=5)
        await pool.close()
    assert held.came.empty()


async def test_another_node_at_that_address_is_not_asked(attic: Attic) -> None:
    held = Held()
    door = await attic.serve(held)
    pool = pool_for(attic.address(door)._replace(server_name=server_name("cellar")))
    with pytest.raises(ConnectFailed, match="certificate"):
        await pool.fetch(UpstreamRequest("GET", "/"), timeout=5)
    await pool.close()
    assert held.came.empty()


@pytest.mark.parametrize(
    "knock",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\n",
        b"LLM-GATEWAY/2 KEY\n",
        b"LLM-GATEWAY/1 KEY\r\n",
        b"LLM-GATEWAY/1 KEY\nGET / HTTP/1.1\r\n\r\n",  # before it has been let in
        b"\xff" * 200,
        b"KEY\n",
    ],
)
async def test_garbage_is_refused(attic: Attic, knock: bytes) -> None:
    held = Held()
    door = await attic.serve(held)
    reader, writer = await attic.dial()
    writer.write(knock.replace(b"KEY", door.key.reveal().encode()))
    assert await asyncio.wait_for(turned_away(reader), 5)
    assert held.came.empty()


async def test_who_asks_before_the_answer_is_refused(attic: Attic) -> None:
    """Also while the server has not taken the connection yet."""
    path = attic.folder / "full.sock"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                filler = stack.enter_context(socket.socket(socket.AF_UNIX))
                filler.setblocking(False)
                filler.connect(str(path))
        door = attic.front.add(path)
        reader, writer = await attic.dial()
        writer.write(b"LLM-GATEWAY/1 %b\n" % door.key.reveal().encode())
        await writer.drain()
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(turned_away(reader), 3)
        assert door.connections == 0


async def test_a_key_that_comes_in_pieces_is_taken(attic: Attic) -> None:
    door = await attic.serve(echoes)
    reader, writer = await attic.dial()
    for byte in b"LLM-GATEWAY/1 %b\n" % door.key.reveal().encode():
        writer.write(bytes([byte]))
        await writer.drain()
    assert await reader.readline() == b"OK\n"


async def test_who_says_nothing_is_not_waited_for(
    attic: Attic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_module, "_PATIENCE", 0.1)
    reader, _ = await attic.dial()
    assert await asyncio.wait_for(closed(reader), 5)


async def test_strangers_who_say_nothing_make_room_for_others(
    attic: Attic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "_MOST", 4)
    door = await attic.serve(answers)
    first, *others = [await attic.dial(ssl=None, server_hostname=None) for _ in range(6)]
    assert await asyncio.wait_for(closed(first[0]), 5)
    pool = pool_for(attic.address(door))
    assert (await pool.fetch(UpstreamRequest("GET", "/"), timeout=5)).status == 200
    await pool.close()
    left = others[-1][0]
    assert not left.at_eof()


async def test_plain_text_is_refused_and_others_go_on(attic: Attic) -> None:
    door = await attic.serve(answers)
    reader, writer = await attic.dial(ssl=None, server_hostname=None)
    writer.write(b"GET / HTTP/1.1\r\n\r\n" * 100)
    with contextlib.suppress(ConnectionError):
        # At most an alert of TLS.
        assert len(await asyncio.wait_for(reader.read(), 5)) < 20
    pool = pool_for(attic.address(door))
    assert (await pool.fetch(UpstreamRequest("GET", "/"), timeout=5)).status == 200
    await pool.close()


async def test_a_server_that_is_not_there_is_a_connection_that_failed(attic: Attic) -> None:
    door = attic.front.add(attic.folder / "nobody.sock")
    pool = pool_for(attic.address(door))
    with pytest.raises(ConnectFailed, match="its server cannot be reached: No such file"):
        await pool.fetch(UpstreamRequest("GET", "/"), timeout=5)
    await pool.close()
    assert (door.connections, door.busy) == (0, 0)


async def test_who_leaves_while_the_way_in_is_opened_leaves_nothing(attic: Attic) -> None:
    door = await attic.serve(echoes)
    for turns in range(12):
        _, writer = await attic.dial()
        writer.write(b"LLM-GATEWAY/1 %b\n" % door.key.reveal().encode())
        for _ in range(turns):
            await asyncio.sleep(0)
        writer.transport.abort()
    # One that stays is behind all of them.
    reader, writer = await attic.dial(door)
    writer.write(b"x\n")
    assert await reader.readline() == b"x\n"
    writer.transport.abort()
    await asyncio.wait_for(door.idle(), 5)
    assert attic.front.outside == 0


async def test_an_end_that_is_no_front_is_said_to_be_none(attic: Attic, authority: Any) -> None:
    made = authority.issue(server_name("attic"), server=True, client=False)
    door = await attic.serve(answers)

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(other, "127.0.0.1", ssl=server_context(made))
    port = listener.sockets[0].getsockname()[1]
    pool = pool_for(attic.address(door)._replace(port=port))
    with pytest.raises(ConnectFailed, match="has not answered as a machine of a cluster"):
        await pool.fetch(UpstreamRequest("GET", "/"), timeout=5)
    await pool.close()
    listener.close()
    await listener.wait_closed()


async def test_a_key_is_in_no_text_of_an_address(attic: Attic) -> None:
    door = await attic.serve(answers)
    assert door.key.reveal() not in repr(attic.address(door))
