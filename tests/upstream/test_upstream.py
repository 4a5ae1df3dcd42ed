"""The pool: reuse, bounds, stale connections, deadlines, uploads, back-pressure, ends."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import ipaddress
import os
import socket
import ssl
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.errors import BackendError, BackendTimeout
from gateway.tasks import spawn
from gateway.upstream import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    HeadTimeout,
    ProtocolError,
    SinkFailed,
    TcpAddress,
    UnixAddress,
    UploadFailed,
    UpstreamPool,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MakePool = Callable[..., UpstreamPool]


@pytest.fixture
async def pool_of() -> AsyncIterator[MakePool]:
    """Makes pools, and closes them before the backend stops."""
    pools: list[UpstreamPool] = []

    def make(address: UnixAddress | TcpAddress, **options: Any) -> UpstreamPool:
        pool = UpstreamPool(address, **{"max_connections": 4, "name": "llama", **options})
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        await pool.close()


@pytest.fixture
def get(recorder: Callable[[], Any]) -> Callable[[UpstreamPool], Any]:
    async def get(pool: UpstreamPool) -> tuple[int, bytes]:
        sink = recorder()
        await pool.send("GET", "/", b"", None, sink)
        return await sink.answer()

    return get


@pytest.fixture
def reports() -> list[dict[str, Any]]:
    """What reaches the loop's exception handler, where a test sets it."""
    return []


class Keeping:
    """A handler that answers every request with ``OK`` and notes what it got."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.requests: list[tuple[int, bytes, bytes]] = []
        self.closed: asyncio.Queue[int] = asyncio.Queue()

    async def __call__(self, reader: Any, writer: Any, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, body = await self.backend.request(reader)
                self.requests.append((number, head, body))
                writer.write(OK)
        self.closed.put_nowait(number)


# --- requests and reuse --------------------------------------------------------------------


async def test_request_on_the_wire_and_reuse(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    keeping = Keeping(backend)
    pool = pool_of(await backend.serve(keeping))
    for headers, body in [
        (b"X-A: b\r\n", b'{"a": 1}'),
        ([("Host", "a"), ("X-A", "b"), ("Content-Length", "99")], b'{"a": 1}'),
        (b"X-A: b\r\n", b"x" * 1_000_000),
    ]:
        sink = recorder()
        exchange = await pool.send("POST", "/v1/x?y=%20", headers, body, sink)
        assert await sink.answer() == (200, b"ok")
        assert exchange.answered
        number, head, got = keeping.requests.pop()
        assert number == 0  # always the same connection
        assert got == body
        assert head == (
            b"POST /v1/x?y=%%20 HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )


@pytest.mark.parametrize(
    ("method", "framing"),
    [("GET", b""), ("HEAD", b""), ("DELETE", b""), ("POST", b"Content-Length: 0\r\n")],
)
async def test_request_without_body(
    backend: Any, pool_of: MakePool, recorder: Any, method: str, framing: bytes
) -> None:
    keeping = Keeping(backend)
    pool = pool_of(await backend.serve(keeping))
    sink = recorder()
    await pool.send(method, "/", b"", None, sink)
    assert await sink.answer() == (200, b"" if method == "HEAD" else b"ok")
    line = method.encode() + b" / HTTP/1.1\r\nHost: localhost\r\n"
    assert keeping.requests[0][1] == line + framing + b"\r\n"


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/ HTTP/1.1\r\nX: y", ()),
        ("GET", "/a b", ()),
        ("GET", "/\n", ()),
        ("GET", "/\u00e9", ()),
        ("GET /", "/", ()),
        ("GET", "/", [("A", "b\r\nX: y")]),
        ("GET", "/", [("A", "b\nX: y")]),
        ("GET", "/", [("A\r\nX", "y")]),
        ("GET", "/", [("A: b", "y")]),
    ],
)
async def test_nothing_can_be_smuggled_into_the_head(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, method: str, target: str, headers: Any
) -> None:
    pool = pool_of(await backend.serve(Keeping(backend)), max_connections=1)
    for _ in range(2):
        with pytest.raises(ValueError, match="not a "):
            await pool.send(method, target, headers, None, recorder())
    assert await get(pool) == (200, b"ok")  # the place is free
    assert backend.connections == 1


async def test_last_used_connection_first_and_idle_ones_expire(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    served: list[int] = []
    closed: asyncio.Queue[int] = asyncio.Queue()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await backend.request(reader)
                served.append(number)
                await gates[number].wait()
                writer.write(OK)
        closed.put_nowait(number)

    pool = pool_of(await backend.serve(handler), max_idle_seconds=0.2)
    sinks = [recorder(), recorder()]
    for sink in sinks:
        # The deadline of a head, far away, must not put off that of an idle connection.
        await pool.send("GET", "/", b"", None, sink, head_timeout=60)
    for number in (1, 0):
        gates[number].set()
        await sinks[number].ended.wait()
    for _ in range(3):
        await get(pool)
    assert served[2:] == [0, 0, 0]
    assert [await closed.get(), await closed.get()] == [1, 0]  # longest idle first
    gates.append(gates[0])
    await get(pool)
    assert backend.connections == 3


async def test_connections_are_bounded_and_waiters_come_in_turn(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    order: list[bytes] = []
    arrived: asyncio.Queue[None] = asyncio.Queue()
    gate = asyncio.Semaphore(0)

    async def handler(reader: Any, writer: Any, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head, _ = await backend.request(reader)
                order.append(head.split()[1])
                arrived.put_nowait(None)
                await gate.acquire()
                writer.write(OK)

    pool = pool_of(await backend.serve(handler), max_connections=2)

    async def ask(target: str) -> None:
        sink = recorder()
        await pool.send("GET", target, b"", None, sink)
        await sink.answer()

    asked = []
    for i in range(7):
        asked.append(spawn(ask(f"/{i}"), name="test"))
        await asyncio.sleep(0)
    await arrived.get()
    await arrived.get()
    assert sorted(order) == [b"/0", b"/1"]
    asked[3].cancel()
    for _ in range(4):
        gate.release()
        await arrived.get()
    gate.release()
    gate.release()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(r, asyncio.CancelledError) for r in results] == [i == 3 for i in range(7)]
    assert order[2:] == [b"/2", b"/4", b"/5", b"/6"]
    assert backend.connections == 2


async def test_a_place_given_to_one_who_is_just_cancelled_is_not_lost(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        if number:
            writer.write(OK)
        await reader.read()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    holder = await pool.send("GET", "/", b"", None, recorder())
    waiter = spawn(pool.send("GET", "/", b"", None, recorder()), name="test")
    await asyncio.sleep(0)
    holder.abort()  # hands the place over
    waiter.cancel()  # before its taker ran
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert await get(pool) == (200, b"ok")


# --- connecting ----------------------------------------------------------------------------


@pytest.fixture
def full_backlog() -> Iterator[tuple[UnixAddress, socket.socket, int]]:
    """A Unix socket whose listener accepts nothing and has no room left."""
    with tempfile.TemporaryDirectory(prefix="gw") as folder, contextlib.ExitStack() as stack:
        path = str(Path(folder) / "full.sock")
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        fillers = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(path)
                fillers += 1
        yield UnixAddress(path), listener, fillers


async def test_connect_timeout(full_backlog: Any, pool_of: MakePool, recorder: Any) -> None:
    address, _, _ = full_backlog
    pool = pool_of(address, max_connections=1, connect_timeout=0.05)
    for _ in range(2):
        sink = recorder()
        with pytest.raises(ConnectTimeout, match=r"llama accepted no connection within 0\.05") as e:
            await pool.send("GET", "/", b"", None, sink)
        assert e.value.status == 504
        assert isinstance(e.value, BackendTimeout)
        assert not sink.ends


async def test_full_backlog_is_waited_out(full_backlog: Any, pool_of: MakePool, get: Any) -> None:
    address, listener, fillers = full_backlog
    pool = pool_of(address)
    asked = spawn(get(pool), name="test")
    await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    for _ in range(fillers):
        (await loop.sock_accept(listener))[0].close()
    accepted, _ = await loop.sock_accept(listener)
    accepted.setblocking(False)
    assert (await loop.sock_recv(accepted, 100)).startswith(b"GET /")
    await loop.sock_sendall(accepted, OK)
    assert await asked == (200, b"ok")
    accepted.close()


async def test_cancelled_while_connecting(
    full_backlog: Any, pool_of: MakePool, recorder: Any
) -> None:
    address, _, _ = full_backlog
    pool = pool_of(address, max_connections=1, connect_timeout=0.05)
    asked = spawn(pool.send("GET", "/", b"", None, recorder()), name="test")
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    with pytest.raises(ConnectTimeout):  # it got the place, and not a wait without end
        await pool.send("GET", "/", b"", None, recorder())


async def test_cancelled_at_any_step_of_connecting(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    keeping = Keeping(backend)
    pool = pool_of(await backend.serve(keeping), max_connections=1)
    for steps in range(12):
        asked = spawn(pool.send("GET", "/", b"", None, recorder()), name="test")
        for _ in range(steps):
            await asyncio.sleep(0)
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await asked).abort()
    assert await get(pool) == (200, b"ok")


async def test_nobody_listens(pool_of: MakePool, recorder: Any, unused_tcp_port: int) -> None:
    for address in (UnixAddress("/nowhere/x.sock"), TcpAddress("127.0.0.1", unused_tcp_port)):
        pool = pool_of(address, max_connections=1)
        for _ in range(2):
            sink = recorder()
            with pytest.raises(ConnectFailed, match="cannot connect to llama: ") as caught:
                await pool.send("GET", "/", b"", None, sink)
            assert caught.value.status == 502
            assert isinstance(caught.value, BackendError)
            assert not sink.ends


async def test_tcp(pool_of: MakePool, get: Any, backend: Any) -> None:
    keeping = Keeping(backend)
    address = await backend.serve(keeping, tcp=True)
    pool = pool_of(address)
    assert await get(pool) == (200, b"ok")
    assert await get(pool) == (200, b"ok")
    assert b"\r\nHost: 127.0.0.1:%d\r\n" % address.port in keeping.requests[0][1]
    named = pool_of(address._replace(authority="llama.example"))
    await get(named)
    assert b"\r\nHost: llama.example\r\n" in keeping.requests[-1][1]
    await pool.close()
    assert await keeping.closed.get() == 0


async def test_tls(backend: Any, pool_of: MakePool, recorder: Any, tls: Any) -> None:
    server_context, client_context = tls
    keeping = Keeping(backend)
    host, port, *_ = await backend.serve(keeping, tls=server_context)
    pool = pool_of(TcpAddress(host, port, client_context))
    for size in (10, 1_000_000):
        sink = recorder()
        await pool.send("POST", "/", b"", b"b" * size, sink)
        assert await sink.answer() == (200, b"ok")
        assert len(keeping.requests[-1][2]) == size
    assert backend.connections == 1
    untrusting = pool_of(TcpAddress(host, port, ssl.create_default_context()))
    with pytest.raises(ConnectFailed, match="certificate"):
        await untrusting.send("GET", "/", b"", None, recorder())


@pytest.fixture
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server at 127.0.0.1, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "llama")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(private + pem)
        file.flush()
        server.load_cert_chain(file.name)
    return server, ssl.create_default_context(cadata=pem.decode())


# --- stale connections ---------------------------------------------------------------------


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of an orderly end (TCP)."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize("way", ["eof", "reset"])
@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_stale_connection_is_retried_once_unseen(
    backend: Any, pool_of: MakePool, recorder: Any, way: str, size: int
) -> None:
    got: list[bytes] = []

    async def handler(reader: Any, writer: Any, number: int) -> None:
        got.append((await backend.request(reader))[1])
        writer.write(OK)
        if number == 0:
            await reader.read(5)  # the next request comes, and we go
            if way == "reset":
                _reset(writer)
        else:
            await reader.read()

    pool = pool_of(await backend.serve(handler, tcp=True), max_connections=1)
    for body in (b"first", b"s" * size):
        sink = recorder()
        await pool.send("POST", "/", b"", body, sink)
        assert await sink.answer() == (200, b"ok")
    assert backend.connections == 2
    assert got == [b"first", b"s" * size]


async def test_retried_only_once(backend: Any, pool_of: MakePool, recorder: Any, get: Any) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        if number != 1:
            writer.write(OK)
            await backend.request(reader)
        # and away

    pool = pool_of(await backend.serve(handler), max_connections=1)
    await get(pool)
    sink = recorder()
    exchange = await pool.send("GET", "/", b"", None, sink)
    with pytest.raises(ConnectionLost, match="llama went away before it answered") as caught:
        await sink.answer()
    assert caught.value.before_head
    assert caught.value.status == 502
    assert not exchange.answered
    assert backend.connections == 2
    assert await get(pool) == (200, b"ok")


async def test_not_retried_after_a_byte_of_answer(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(OK)
        await backend.request(reader)
        writer.write(b"H")
        await writer.drain()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    await get(pool)
    sink = recorder()
    exchange = await pool.send("GET", "/", b"", None, sink)
    with pytest.raises(ConnectionLost) as caught:
        await sink.answer()
    assert caught.value.before_head
    assert exchange.answered
    assert backend.connections == 1


async def test_retry_where_nobody_listens_any_more(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    address: UnixAddress

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(OK)
        await backend.request(reader)
        os.unlink(address.path)  # noqa: PTH108

    address = await backend.serve(handler)
    pool = pool_of(address, max_connections=1)
    await get(pool)
    sink = recorder()
    await pool.send("GET", "/", b"", None, sink)
    with pytest.raises(ConnectFailed):
        await sink.answer()
    with pytest.raises(ConnectFailed):
        await get(pool)  # at once: the place is free


@pytest.mark.parametrize("how", ["abort", "abort_all", "close"])
async def test_ended_while_connecting_again(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, full_backlog: Any, how: str
) -> None:
    gone = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(OK)
        await backend.request(reader)
        os.replace(full_backlog[0].path, address.path)  # noqa: PTH105
        gone.set()

    address = await backend.serve(handler)
    pool = pool_of(address, max_connections=1, connect_timeout=0.1)
    await get(pool)
    sink = recorder()
    exchange = await pool.send("GET", "/", b"", None, sink)
    await gone.wait()
    while not pool.reconnecting:  # a matter of a few turns of the loop
        await asyncio.sleep(0)
    if how == "abort":
        exchange.abort()
    elif how == "abort_all":
        pool.abort_all()
    else:
        await pool.close()
    if how == "abort":
        assert not sink.ends
    else:
        with pytest.raises(ConnectionLost, match="shut down"):
            await sink.answer()
    with pytest.raises(ConnectFailed if how == "close" else ConnectTimeout):
        await get(pool)


async def test_connection_closed_while_idle_is_not_used(
    backend: Any, pool_of: MakePool, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(OK)

    pool = pool_of(await backend.serve(handler), max_connections=1)
    for i in range(3):
        assert await get(pool) == (200, b"ok")
        assert backend.connections == i + 1


async def test_unasked_bytes_on_an_idle_connection(
    backend: Any, pool_of: MakePool, get: Any
) -> None:
    more = asyncio.Event()
    closed = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(OK)
        if number == 0:
            await more.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        await reader.read()
        closed.set()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    await get(pool)
    more.set()
    await closed.wait()
    assert await get(pool) == (200, b"ok")
    assert backend.connections == 2


async def test_100_requests_a_connection_as_llama_server_has_it(
    backend: Any, pool_of: MakePool, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        # Without `Connection: close`, and with requests already under way: the worst case.
        for _ in range(100):
            await backend.request(reader)
            writer.write(OK)

    pool = pool_of(await backend.serve(handler, backlog=5), max_connections=16)

    async def client() -> None:
        for _ in range(150):
            assert await get(pool) == (200, b"ok")

    await asyncio.gather(*(client() for _ in range(16)))
    assert backend.connections >= 24


# --- ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part", [b"Content-Length: 10\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
)
async def test_lost_in_the_middle_is_never_a_clean_end(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, part: bytes
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + part if number == 0 else OK)

    pool = pool_of(await backend.serve(handler), max_connections=1)
    sink = recorder()
    await pool.send("GET", "/", b"", None, sink)
    with pytest.raises(ConnectionLost, match="in the middle of its answer") as caught:
        await sink.answer()
    assert not caught.value.before_head
    assert sink.body == b"half"
    assert await get(pool) == (200, b"ok")


async def test_a_reset_is_no_end_of_a_body_that_ends_with_its_connection(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    go = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhalf")
        await go.wait()
        _reset(writer)

    pool = pool_of(await backend.serve(handler, tcp=True))
    sink = recorder()
    await pool.send("GET", "/", b"", None, sink)
    await sink.fed.wait()
    go.set()
    with pytest.raises(ConnectionLost):
        await sink.answer()


@pytest.mark.parametrize("phase", ["before head", "in body", "twice", "after end"])
async def test_abort(backend: Any, pool_of: MakePool, recorder: Any, get: Any, phase: str) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        asked.set()
        if number == 1 or phase == "after end":
            writer.write(OK)
        elif phase == "in body":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(100):
                assert phase == "after end", data
                writer.write(OK)
        closed.set()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    sink = recorder()
    exchange = await pool.send("GET", "/", b"", None, sink)
    await asked.wait()
    if phase == "in body":
        await sink.fed.wait()
    elif phase == "after end":
        await sink.ended.wait()
    exchange.abort()
    if phase == "twice":
        exchange.abort()
    if phase == "after end":
        assert await get(pool) == (200, b"ok")
        assert backend.connections == 1  # it was no more that exchange's to close
    else:
        await closed.wait()
        assert not sink.ends
        assert await get(pool) == (200, b"ok")
    exchange.pause()
    exchange.resume()
    exchange.abort()


async def test_abort_from_a_callback_stops_what_was_read_already(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        if number < 2:
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head + b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")  # one read, and one piece
        else:
            writer.write(OK)
        await reader.read()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    for phase in ("on_head", "on_body"):
        sink = recorder()
        done = asyncio.Event()
        heard = getattr(sink, phase)

        exchanges = []

        def stop(what: Any, heard: Any = heard, done: Any = done, own: Any = exchanges) -> None:
            heard(what)
            own[0].abort()
            done.set()

        setattr(sink, phase, stop)
        exchanges.append(await pool.send("GET", "/", b"", None, sink))
        await done.wait()
        assert sink.body == (b"ab" if phase == "on_body" else b"")
        assert not sink.ends
    assert await get(pool) == (200, b"ok")


@pytest.mark.parametrize("phase", ["on_head", "on_body", "on_end", "on_error"])
async def test_a_sink_that_raises_harms_only_itself(
    backend: Any,
    pool_of: MakePool,
    recorder: Any,
    get: Any,
    phase: str,
    reports: list[dict[str, Any]],
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        if phase == "on_error" and number == 0:
            return
        writer.write(OK)
        await reader.read()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    sink = recorder()
    raised = asyncio.Event()

    def fail(*_: Any) -> None:
        raised.set()
        raise RuntimeError("bug")

    setattr(sink, phase, fail)
    await pool.send("GET", "/", b"", None, sink)
    await raised.wait()
    assert len(reports) == 1
    assert str(reports[0]["exception"]) == "bug"
    if phase in ("on_head", "on_body"):
        with pytest.raises(SinkFailed) as caught:
            await sink.answer()
        assert caught.value.status == 500
        pool.abort_all()
    elif phase == "on_end":
        pool.abort_all()
    assert await get(pool) == (200, b"ok")
    assert len(reports) == 1


@pytest.mark.parametrize("size", [100, 100_000])
async def test_request_body_is_let_go_when_the_answer_begins(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, size: int
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        for answer in (OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"):
            await backend.request(reader)
            writer.write(answer)
        await reader.read()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    await get(pool)
    sink = recorder()
    body = b"b" * size
    before = sys.getrefcount(body)
    gc.disable()
    try:
        exchange = await pool.send("POST", "/", b"", body, sink)
        await sink.fed.wait()
        assert sys.getrefcount(body) == before
        sinks = sys.getrefcount(sink)
        exchange.abort()
        assert sys.getrefcount(sink) < sinks
    finally:
        gc.enable()


# --- deadlines -----------------------------------------------------------------------------


async def test_head_timeout(backend: Any, pool_of: MakePool, recorder: Any, get: Any) -> None:
    closed = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        if number == 0:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
            await reader.read()
            closed.set()
        else:
            writer.write(OK)
            await reader.read()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    sink = recorder()
    await pool.send("GET", "/", b"", None, sink, head_timeout=0.05)
    with pytest.raises(HeadTimeout, match=r"llama sent no answer within 0\.05 s") as caught:
        await sink.answer()
    assert caught.value.status == 504
    assert isinstance(caught.value, BackendTimeout)
    await closed.wait()
    assert await get(pool) == (200, b"ok")


async def test_head_timeout_is_over_with_the_head(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    go = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        if number == 0:
            writer.write(OK[:-2])
            await go.wait()
            writer.write(OK[-2:])
        await reader.read()

    pool = pool_of(await backend.serve(handler))
    slow, silent = recorder(), recorder()
    await pool.send("GET", "/", b"", None, slow, head_timeout=0.05)
    await slow.begun.wait()
    await pool.send("GET", "/", b"", None, silent, head_timeout=0.1)  # ends after slow's would
    await silent.ended.wait()
    assert not slow.ends
    go.set()
    assert await slow.answer() == (200, b"ok")


async def test_backend_that_does_not_take_the_request_in(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    gate = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await gate.wait()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10_000

    pool = pool_of(await backend.serve(handler))
    for body in (b"x" * 10_000_000, endless()):
        sink = recorder()
        await pool.send("POST", "/", b"", body, sink, head_timeout=0.1)
        with pytest.raises(HeadTimeout):
            await sink.answer()
    gate.set()


async def test_slow_uploader_is_not_the_backends_fault(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    keeping = Keeping(backend)
    pool = pool_of(await backend.serve(keeping))
    other = recorder()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await other.ended.wait()
        yield b"b"

    async def silent(reader: Any, writer: Any, number: int) -> None:
        await reader.read()

    sink = recorder()
    await pool.send("POST", "/", b"", slow(), sink, head_timeout=0.05)
    clock = pool_of(await backend.serve(silent))
    await clock.send("GET", "/", b"", None, other, head_timeout=0.1)
    assert await sink.answer() == (200, b"ok")
    assert keeping.requests[0][2] == b"ab"


# --- back-pressure -------------------------------------------------------------------------


async def test_pause_stops_the_backend(backend: Any, pool_of: MakePool, recorder: Any) -> None:
    total = 4_000_000
    sent = 0
    stuck = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        nonlocal sent
        await backend.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(b"x" * 10_000)
            sent += 10_000
            drain = spawn(writer.drain(), name="drain")
            if not (await asyncio.wait([drain], timeout=0.3))[0]:
                stuck.set()
                await drain
        await reader.read()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    sink = recorder()
    heard = sink.on_body

    def pause(data: bytes) -> None:
        heard(data)
        if not stuck.is_set():
            exchange.pause()
            exchange.pause()

    sink.on_body = pause
    exchange = await pool.send("GET", "/", b"", None, sink)
    await stuck.wait()
    assert len(sink.body) <= 256 * 1024
    assert sent < total
    exchange.resume()
    exchange.resume()
    assert (await sink.answer())[0] == 200
    assert len(sink.body) == total


async def test_connection_of_a_paused_exchange_can_be_reused(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    keeping = Keeping(backend)
    pool = pool_of(await backend.serve(keeping), max_connections=1)
    sink = recorder()
    sink.on_head = lambda head: exchange.pause()
    sink.on_body = lambda data: None
    sink.on_end = sink.ended.set
    exchange = await pool.send("GET", "/", b"", None, sink)
    await sink.ended.wait()
    exchange.pause()  # too late, and without effect on whoever has the connection now
    assert await get(pool) == (200, b"ok")
    assert backend.connections == 1


# --- uploads -------------------------------------------------------------------------------


@pytest.mark.parametrize("authority", ["a\r\nX: y", "a b", "\u00e4"])
async def test_what_host_cannot_name(pool_of: MakePool, authority: str) -> None:
    with pytest.raises(ValueError, match="not an authority"):
        pool_of(UnixAddress("/x.sock", authority))


async def test_host_of_an_ipv6_address(pool_of: MakePool, backend: Any, get: Any) -> None:
    keeping = Keeping(backend)
    address = await backend.serve(keeping, tcp="::1")
    await get(pool_of(address))
    assert b"\r\nHost: [::1]:%d\r\n" % address.port in keeping.requests[0][1]


@pytest.mark.parametrize("length", [None, 100_003])
async def test_streamed_upload(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, length: int | None
) -> None:
    keeping = Keeping(backend)
    pool = pool_of(await backend.serve(keeping), max_connections=1)
    await get(pool)

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        yield b""
        for _ in range(10):
            await asyncio.sleep(0)
            yield b"b" * 10_000
        yield b"zz"

    sink = recorder()
    await pool.send("POST", "/", b"", body(), sink, body_length=length)
    assert await sink.answer() == (200, b"ok")
    number, head, got = keeping.requests[1]
    assert got == b"a" + b"b" * 100_000 + b"zz"
    assert number == 1  # a connection of its own: it could not be sent again
    assert (b"chunked" in head) == (length is None)
    await get(pool)
    assert keeping.requests[2][0] == 1


TOTAL = 8_000_000


@pytest.mark.parametrize("length", [None, TOTAL])
async def test_upload_is_not_collected(
    backend: Any, pool_of: MakePool, recorder: Any, length: int | None
) -> None:
    go = asyncio.Event()
    got = bytearray()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        while len(got) < TOTAL if length else not got.endswith(b"\r\n0\r\n\r\n"):
            got.extend(await reader.read(100_000))
        writer.write(OK)
        await reader.read()

    taken = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        while taken < TOTAL:
            taken += 10_000
            yield b"x" * 10_000

    pool = pool_of(await backend.serve(handler), max_connections=1)
    sink = recorder()
    await pool.send("POST", "/", b"", body(), sink, body_length=length)
    last = -1
    while taken != last or not taken:  # until the reader's and the writer's buffers are full
        last = taken
        for _ in range(20):
            await asyncio.sleep(0)
    assert taken < TOTAL / 4
    go.set()
    assert await sink.answer() == (200, b"ok")
    assert got.count(b"x") == TOTAL


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("closes", [False, True])
async def test_answer_before_the_upload_is_over(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, streamed: bool, closes: bool
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if number % 2:
            writer.write(OK)
            await reader.read()
            return
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        if not closes:
            await writer.drain()
            await reader.read()

    finished = asyncio.Queue[None]()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 10_000
        finally:
            finished.put_nowait(None)

    pool = pool_of(await backend.serve(handler), max_connections=1)
    for _ in range(20):
        sink = recorder()
        await pool.send("POST", "/", b"", endless() if streamed else b"x" * 9_000_000, sink)
        assert await sink.answer() == (413, b"big")
        if streamed:
            await finished.get()
        assert await get(pool) == (200, b"ok")
        pool.abort_all()


async def test_upload_whose_source_fails(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    closed = asyncio.Queue[int]()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ValueError):
            await backend.request(reader)
            writer.write(OK)
            await reader.read()
        closed.put_nowait(number)

    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise OSError("the client is gone")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"four"

    pool = pool_of(await backend.serve(handler), max_connections=1)
    for body, length, message in [
        (broken(), None, "the client is gone"),
        (pieces(), 5, "shorter"),
        (pieces(), 3, "longer"),
    ]:
        sink = recorder()
        await pool.send("POST", "/", b"", body, sink, body_length=length)
        with pytest.raises(UploadFailed) as caught:
            await sink.answer()
        assert caught.value.status == 400
        assert message in str(caught.value.__cause__)
        await closed.get()
    assert await get(pool) == (200, b"ok")


async def test_aborted_upload_ends_its_source(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await reader.read()

    ended = asyncio.Event()
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    pool = pool_of(await backend.serve(handler))
    sink = recorder()
    exchange = await pool.send("POST", "/", b"", stuck(), sink)
    await begun.wait()
    exchange.abort()
    await ended.wait()
    assert not sink.ends


# --- fetch ---------------------------------------------------------------------------------


async def test_fetch(backend: Any, pool_of: MakePool, recorder: Any) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head, body = await backend.request(reader)
                if b"silent" in head:
                    await reader.read()
                elif b"garbage" in head:
                    writer.write(b"garbage")
                else:
                    answer = b"x" * 2000 if b"big" in head else body or b"none"
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer))
                    writer.write(answer)

    pool = pool_of(await backend.serve(handler), max_connections=1)
    await pool.send("GET", "/silent", b"", None, recorder())  # no place is left
    assert await pool.fetch("GET", "/health", timeout=5) == (
        200,
        [],
        b"none",
    )
    posted = await pool.fetch("POST", "/slots", body=b"{}", headers=[("A", "b")], timeout=5)
    assert posted.body == b"{}"
    assert len((await pool.fetch("GET", "/big", timeout=5, max_body=2000)).body) == 2000
    with pytest.raises(ProtocolError, match="over 1999 bytes"):
        await pool.fetch("GET", "/big", timeout=5, max_body=1999)
    with pytest.raises(ProtocolError):
        await pool.fetch("GET", "/garbage", timeout=5)
    with pytest.raises(HeadTimeout, match=r"llama did not answer within 0\.05 s"):
        await pool.fetch("GET", "/silent", timeout=0.05)


# --- the end of a pool ---------------------------------------------------------------------


async def test_abort_all_and_close(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head, _ = await backend.request(reader)
                if b"half" in head:
                    writer.write(OK[:-1])
                elif b"silent" not in head:
                    writer.write(OK)

    pool = pool_of(await backend.serve(handler), max_connections=3)
    for end in (pool.abort_all, pool.close):
        silent, half, waits = recorder(), recorder(), recorder()
        await pool.send("GET", "/silent", b"", None, silent)
        await pool.send("GET", "/half", b"", None, half)
        await half.fed.wait()
        await get(pool)  # leaves an idle connection
        if end == pool.close:
            await pool.send("GET", "/silent", b"", None, recorder())
            waiting = spawn(pool.send("GET", "/", b"", None, waits), name="test")
            await asyncio.sleep(0)
        if (closing := end()) is not None:
            await closing
        for sink, before_head in ((silent, True), (half, False)):
            with pytest.raises(ConnectionLost, match="llama was shut down") as caught:
                await sink.answer()
            assert caught.value.before_head is before_head
    with pytest.raises(ConnectFailed, match="shut down"):
        await waiting
    with pytest.raises(ConnectFailed, match="shut down"):
        await get(pool)
    with pytest.raises(ConnectFailed, match="shut down"):
        await pool.fetch("GET", "/", timeout=1)
    await pool.close()  # again, and at once
