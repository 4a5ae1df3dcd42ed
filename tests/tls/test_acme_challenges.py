"""tls-alpn-01 in real handshakes: the authority sees the proof, everybody else the certificate."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from gateway.tls import CertificateReloader
from gateway.tls.acme_challenges import ALPN, Challenges, offered_protocols
from tests.tls.conftest import Forge

OID = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


def client(*protocols: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


@asynccontextmanager
async def listening(reloader: CertificateReloader) -> AsyncIterator[int]:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=reloader.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def shown(port: int, context: ssl.SSLContext, name: str) -> tuple[bytes, str | None]:
    """The certificate (DER) and the protocol that a client gets."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    tls = writer.get_extra_info("ssl_object")
    found = tls.getpeercert(binary_form=True), tls.selected_alpn_protocol()
    writer.close()
    return found


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize(
    ("name", "server_name"),
    [("box.example.com", "box.example.com"), ("192.0.2.1", "1.2.0.192.in-addr.arpa")],
)
def test_only_who_asks_for_the_proof_is_shown_it(
    forge: Forge, factory: Any, version: ssl.TLSVersion, name: str, server_name: str
) -> None:
    own = forge.issue()

    async def main() -> None:
        reloader = await CertificateReloader.open(forge.write(own))
        challenges = Challenges({})
        challenges.attach(reloader)
        authority = client(ALPN, version=version)
        ordinary = [client("http/1.1", version=version), client("h2", "http/1.1", version=version)]
        async with listening(reloader) as port:
            assert await shown(port, authority, server_name) == (own.der, None)
            with challenges.over_tls(name, "token.thumbprint"):
                proof, protocol = await shown(port, authority, server_name)
                assert await shown(port, authority, server_name.upper()) == (proof, protocol)
                for context in (*ordinary, client(version=version)):
                    der, spoken = await shown(port, context, server_name)
                    assert der == own.der
                    assert spoken in ("http/1.1", None)
                assert (await shown(port, authority, "other.example.com"))[0] == own.der
            assert await shown(port, authority, server_name) == (own.der, None)
            # Nothing looks into handshakes any more: Python has no public name for who does.
            assert reloader.context._msg_callback is None  # type: ignore[attr-defined]  # noqa: SLF001
        certificate = x509.load_der_x509_certificate(proof)
        extension = certificate.extensions.get_extension_for_oid(OID)
        assert protocol == ALPN
        assert extension.critical
        digest = hashlib.sha256(b"token.thumbprint").digest()
        assert isinstance(extension.value, x509.UnrecognizedExtension)
        assert extension.value.value == b"\x04\x20" + digest
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(n.value) for n in names] == [name]

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(main(), 20))


def test_http_proofs_are_there_only_while_they_are_wanted() -> None:
    tokens: dict[str, str] = {}
    with Challenges(tokens).over_http("token", "token.thumbprint"):
        assert tokens == {"token": "token.thumbprint"}
    assert tokens == {}


def hello_of(*protocols: str) -> bytes:
    """A ClientHello as OpenSSL makes it, without its record header."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client(*protocols).wrap_bio(incoming, outgoing, server_hostname="x.example.com")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()[5:]


@pytest.mark.parametrize(
    "protocols", [(), ("http/1.1",), (ALPN,), ("h2", ALPN, "http/1.1")], ids=str
)
def test_protocols_of_a_real_client_hello_are_read(protocols: tuple[str, ...]) -> None:
    assert offered_protocols(hello_of(*protocols)) == list(protocols)


@given(cut=st.integers(0, 600), change=st.dictionaries(st.integers(0, 600), st.integers(0, 255)))
def test_a_damaged_client_hello_is_no_error(cut: int, change: dict[int, int]) -> None:
    data = bytearray(hello_of("h2", ALPN))
    for at, value in change.items():
        data[at % len(data)] = value
    assert isinstance(offered_protocols(bytes(data[:cut])), list)


@given(st.binary(max_size=200))
def test_garbage_is_no_error(data: bytes) -> None:
    assert isinstance(offered_protocols(data), list)
