"""A new certificate under open streams, and sessions before and after it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.tls import CertificateReloader
from tests.tls.conftest import Forge
from tests.tls.context.streams import (
    VERSIONS,
    anyone,
    close,
    connect,
    echo_server,
    echoes,
    presented,
    tls_of,
)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("before", "after"), [("ec", "ec"), ("rsa", "ec"), ("ec", "rsa")])
def test_new_certificate_breaks_none_of_fifty_streams(
    forge: Forge, run: Callable[[Awaitable[None]], None], version: Any, before: str, after: str
) -> None:
    keys = {"rsa": forge.rsa_key(1), "ec": None}
    old = forge.issue(forge.middle, key=keys[before])
    new = forge.issue(forge.middle, key=keys[after])
    client = anyone(version)

    async def main() -> None:
        reloader = await CertificateReloader.open(forge.write(old, forge.middle))
        async with echo_server(reloader.context) as port:
            streams = await asyncio.gather(*(connect(port, client) for _ in range(50)))
            # Accepted before the change, greeting after it.
            slow = socket.create_connection(("127.0.0.1", port))
            assert tls_of(streams[0]).getpeercert(binary_form=True) == old.der

            forge.write(new, forge.middle)
            await reloader.reload()

            assert await presented(port, client) == new.der
            assert await presented(port, client, name="") == new.der  # without a server name
            late = await asyncio.open_connection(sock=slow, ssl=client, server_hostname="localhost")
            assert await echoes(late)
            assert tls_of(late).getpeercert(binary_form=True) == new.der
            assert all(await asyncio.gather(*(echoes(stream) for stream in streams)))
            await close(late, *streams)

    run(main())


def test_the_new_chain_and_alpn_come_with_the_new_certificate(
    forge: Forge, run: Callable[[Awaitable[None]], None]
) -> None:
    other = forge.issue(forge.root, name="Next intermediate", authority=True)
    client = forge.client()
    client.set_alpn_protocols(["http/1.1"])

    async def main() -> None:
        tls = forge.write(forge.issue(forge.middle), forge.middle)
        reloader = await CertificateReloader.open(tls)
        async with echo_server(reloader.context) as port:
            for _ in range(3):  # more than one swap
                new = forge.issue(other)
                forge.write(new, other)
                await reloader.reload()
                stream = await connect(port, client)
                assert tls_of(stream).getpeercert(binary_form=True) == new.der
                assert tls_of(stream).selected_alpn_protocol() == "http/1.1"
                await close(stream)

    run(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_are_resumed_before_and_after_a_new_certificate(
    forge: Forge, run: Callable[[Awaitable[None]], None], version: Any
) -> None:
    client = anyone(version)

    def visit(port: int, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            client.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(b"hello\n")
            assert tls.recv(6) == b"hello\n"  # TLS 1.3 sends the ticket after the handshake
            return tls.session, bool(tls.session_reused)

    async def main() -> None:
        tls = forge.write(forge.issue())
        reloader = await CertificateReloader.open(tls)
        async with echo_server(reloader.context) as port:
            session, reused = await asyncio.to_thread(visit, port, None)
            assert not reused
            session, reused = await asyncio.to_thread(visit, port, session)
            assert reused
            forge.write(forge.issue())
            await reloader.reload()
            session, reused = await asyncio.to_thread(visit, port, session)
            assert reused
            # And what is handed out by the new certificate's context works too.
            session, _ = await asyncio.to_thread(visit, port, None)
            _, reused = await asyncio.to_thread(visit, port, session)
            assert reused

    run(main())
