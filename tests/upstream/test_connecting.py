"""How connections come about: Unix sockets, TCP, TLS, and what goes wrong there."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import tempfile
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.errors import BackendError, BackendTimeout
from gateway.tasks import spawn
from gateway.upstream import ConnectFailed, ConnectTimeout, TcpAddress, UnixAddress, UpstreamRequest
from tests.pools import GET, OK, Keeping, MakePool


async def test_connection_that_is_not_accepted_in_time_is_a_504(
    full_backlog: Any, pool_of: MakePool, recorder: Any
) -> None:
    address, _, _ = full_backlog
    pool = pool_of(address, max_connections=1, connect_timeout=0.05)
    for _ in range(2):
        sink = recorder()
        with pytest.raises(ConnectTimeout, match=r"llama accepted no connection within 0\.05") as e:
            await pool.send(GET, sink)
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


async def test_cancelling_a_connect_gives_its_place_back(
    full_backlog: Any, pool_of: MakePool, recorder: Any
) -> None:
    address, _, _ = full_backlog
    pool = pool_of(address, max_connections=1, connect_timeout=0.05)
    asked = spawn(pool.send(GET, recorder()), name="test")
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    with pytest.raises(ConnectTimeout):  # it got the place, and not a wait without end
        await pool.send(GET, recorder())


async def test_closing_a_pool_ends_its_connects_at_once(
    full_backlog: Any, pool_of: MakePool, recorder: Any
) -> None:
    address, _, _ = full_backlog
    pool = pool_of(address, connect_timeout=60)
    asked = spawn(pool.send(GET, recorder()), name="test")
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await pool.close()
        with pytest.raises(ConnectFailed, match="llama is shut down"):
            await asked


async def test_cancelling_at_any_step_of_connecting_gives_the_place_back(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    keeping = Keeping(backend)
    pool = pool_of(await backend.serve(keeping), max_connections=1)
    for steps in range(12):
        asked = spawn(pool.send(GET, recorder()), name="test")
        for _ in range(steps):
            await asyncio.sleep(0)
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await asked).abort()
    assert await get(pool) == (200, b"ok")


async def test_where_nobody_listens_is_a_502(
    pool_of: MakePool, recorder: Any, unused_tcp_port: int
) -> None:
    for address in (UnixAddress("/nowhere/x.sock"), TcpAddress("127.0.0.1", unused_tcp_port)):
        pool = pool_of(address, max_connections=1)
        for _ in range(2):
            sink = recorder()
            with pytest.raises(ConnectFailed, match="cannot connect to llama: ") as caught:
                await pool.send(GET, sink)
            assert caught.value.status == 502
            assert isinstance(caught.value, BackendError)
            assert not sink.ends


async def test_tcp_is_spoken_and_host_names_the_authority(
    pool_of: MakePool, get: Any, backend: Any
) -> None:
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


async def test_tls_is_spoken_with_those_that_are_trusted(
    backend: Any, pool_of: MakePool, recorder: Any, tls: Any
) -> None:
    server_context, client_context = tls
    keeping = Keeping(backend)
    host, port, *_ = await backend.serve(keeping, tls=server_context)
    pool = pool_of(TcpAddress(host, port, client_context))
    for size in (10, 1_000_000):
        sink = recorder()
        await pool.send(UpstreamRequest("POST", "/", body=b"b" * size), sink)
        assert await sink.answer() == (200, b"ok")
        assert len(keeping.requests[-1][2]) == size
    assert backend.connections == 1
    untrusting = pool_of(TcpAddress(host, port, ssl.create_default_context()))
    with pytest.raises(ConnectFailed, match="certificate"):
        await untrusting.send(GET, recorder())


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
