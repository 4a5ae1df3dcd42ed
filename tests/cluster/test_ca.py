"""The authority of a cluster: made once, kept to itself, and trusted by nobody but its machines."""

from __future__ import annotations

import asyncio
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.cluster.ca import (
    Authority,
    Credentials,
    Request,
    client_context,
    renew,
    server_context,
    server_name,
)
from gateway.names import parse_name


def names_of(pem: bytes) -> list[str]:
    certificate = x509.load_pem_x509_certificate(pem)
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in found]


async def met(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str:
    """What comes of a connection: ``""``, or what is wrong at the end that notices it."""
    server_saw: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_saw.set_result(await reader.readline())
        writer.write(b"hello\n")
        writer.close()

    listener = await asyncio.start_server(greet, "127.0.0.1", ssl=server)
    port = listener.sockets[0].getsockname()[1]
    writer = None
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client, server_hostname=name
        )
        writer.write(b"hi\n")
        return "" if await reader.readline() == b"hello\n" else "closed"
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except (ssl.SSLError, ConnectionError) as error:
        return getattr(error, "reason", None) or "closed"
    finally:
        if writer is not None:
            writer.transport.abort()
        listener.close()
        await listener.wait_closed()


def test_it_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cluster"
    with ThreadPoolExecutor(4) as threads:  # gateways that start at once
        made = list(threads.map(Authority.open, [folder] * 4))
    assert {one.pem for one in made} == {Authority.open(folder).pem}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "ca-key.pem").stat().st_mode) == 0o600
    assert sorted(file.name for file in folder.iterdir()) == ["ca-crt.pem", "ca-key.pem"]


def test_half_of_it_is_refused_and_said(tmp_path: Path) -> None:
    Authority.open(tmp_path)
    (tmp_path / "ca-crt.pem").unlink()
    with pytest.raises(ValueError, match=r"half of the authority is missing.*ca-crt\.pem"):
        Authority.open(tmp_path)


def test_a_node_has_a_name_that_a_certificate_may_carry() -> None:
    assert server_name("attic-2") == "attic-2.node.llm-gateway.internal"
    for node in ("Attic", "at.tic", "ä", "a" * 64, "my box"):
        name = server_name(node)
        assert parse_name(name) == name
        assert name.endswith(".node.llm-gateway.internal")


def test_no_two_nodes_have_one_name() -> None:
    taken = server_name("Attic").split(".")[0]
    nodes = ["attic", "Attic", "at.tic", "at_tic", "-attic", "attic-", "ä", "a" * 64, taken, "n-x"]
    assert len({server_name(node) for node in nodes}) == len(nodes)


async def test_machines_of_a_cluster_know_each_other(authority: Authority) -> None:
    name = server_name("attic")
    request = Request.make()
    pem = authority.sign(request.text, name, "10.0.0.7", server=True, client=True)
    node = request.granted(pem, authority.pem)
    assert names_of(node.certificate) == [name, "10.0.0.7"]
    gateway = authority.issue("gateway.llm-gateway.internal", server=False, client=True)
    assert await met(server_context(node), client_context(gateway), name) == ""
    assert "match" in await met(server_context(node), client_context(gateway), server_name("b"))


async def test_who_is_of_no_cluster_or_of_another_is_refused(
    authority: Authority, other_authority: Authority
) -> None:
    name = server_name("attic")
    node = authority.issue(name, server=True, client=False)
    for stranger in (
        other_authority.issue("gateway", server=False, client=True),
        authority.issue("gateway", server=True, client=False),  # a server's, and no client's
    ):
        theirs = Credentials(
            stranger.certificate, stranger.private_key, authority.pem, stranger.not_after
        )
        assert await met(server_context(node), client_context(theirs), name) != ""
    without = ssl.create_default_context(cadata=authority.pem.decode())
    assert await met(server_context(node), without, name) != ""
    client = authority.issue("gateway", server=False, client=True)
    foreign = other_authority.issue(name, server=True, client=False)
    assert await met(server_context(foreign), client_context(client), name) != ""
    no_server = authority.issue(name, server=False, client=True)
    assert await met(server_context(no_server), client_context(client), name) != ""


async def test_an_expired_one_is_refused_and_a_renewed_one_is_shown(authority: Authority) -> None:
    name = server_name("attic")
    client = client_context(authority.issue("gateway", server=False, client=True))
    server = server_context(authority.issue(name, server=True, client=False, days=-0.5))
    assert "expired" in await met(server, client, name)
    renew(server, authority.issue(name, server=True, client=False))
    assert await met(server, client, name) == ""


def test_a_certificate_ends_soon_and_its_start_forgives_a_slow_clock(authority: Authority) -> None:
    made = authority.issue("attic", server=True, client=False)
    now = datetime.now(UTC)
    assert timedelta(days=89) < made.not_after - now < timedelta(days=91)
    certificate = x509.load_pem_x509_certificate(made.certificate)
    assert now - certificate.not_valid_before_utc > timedelta(hours=23)


def test_two_clusters_can_be_trusted_at_once(
    authority: Authority, other_authority: Authority
) -> None:
    made = authority.issue("gateway", server=False, client=True)
    both = authority.pem + other_authority.pem
    context = client_context(Credentials(made.certificate, made.private_key, both, made.not_after))
    assert len(context.get_ca_certs()) == 2


def test_only_the_key_of_a_request_counts(authority: Authority) -> None:
    request, another = Request.make(), Request.make()
    pem = authority.sign(request.text, "attic", server=True, client=False)
    with pytest.raises(ValueError, match="for another key"):
        another.granted(pem, authority.pem)
    with pytest.raises(ValueError, match="at least one name"):
        authority.sign(request.text, server=True, client=False)
    with pytest.raises(ValueError, match="a server, a client, or both"):
        authority.issue("attic", server=False, client=False)
    with pytest.raises(ValueError, match="not a host name"):
        authority.issue("a b", server=True, client=False)
    with pytest.raises(ValueError, match="PEM"):
        authority.sign(b"garbage", "attic", server=True, client=False)


def test_a_request_must_be_signed_by_its_key_and_be_of_the_right_kind(authority: Authority) -> None:
    der = bytearray(x509.load_pem_x509_csr(Request.make().text).public_bytes(Encoding.DER))
    der[-1] ^= 1
    spoilt = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    with pytest.raises(ValueError, match="does not have its key"):
        authority.sign(spoilt, "attic", server=True, client=False)
    key = rsa.generate_private_key(65537, 2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    wrong = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    with pytest.raises(ValueError, match="P-256"):
        authority.sign(wrong, "attic", server=True, client=False)


def test_no_key_is_in_what_is_shown(authority: Authority) -> None:
    made, request = authority.issue("attic", server=True, client=False), Request.make()
    for one in (made, request):
        assert "PRIVATE KEY" in one.private_key.reveal()
        assert "PRIVATE" not in repr(one)
