"""The local authority: what it signs, where it writes, and that real clients accept it."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import shutil
import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from gateway.config.settings import TlsSettings
from gateway.names import file_stem, parse_name
from gateway.tls import MAX_DAYS, SelfSigned, build_context, default_domains, inspect, self_signed


def settings(made: SelfSigned) -> TlsSettings:
    return TlsSettings(
        enabled=True,
        private_key=made.private_key,
        certificate=made.certificate,
        ca_chain=made.chain,
    )


def strict_client(ca: Path) -> ssl.SSLContext:
    """Verifies as RFC 5280 says, every extension included (Python's default from 3.13 on)."""
    context = ssl.create_default_context(cafile=str(ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


async def accepted(made: SelfSigned, ca: Path, name: str) -> str:
    """The error that a client of ``ca`` has with this certificate for ``name``, or ``""``."""
    context = await asyncio.to_thread(build_context, settings(made))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=strict_client(ca), server_hostname=name
        )
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        server.close()
        await server.wait_closed()
    writer.close()
    return ""


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("box.example.com", ""),
        ("192.168.1.20", ""),
        ("2001:db8::1", ""),
        ("a.lan.example", ""),
        ("a.b.lan.example", "Hostname mismatch"),
        ("other.example.com", "Hostname mismatch"),
        ("192.168.1.21", "IP address mismatch"),
    ],
)
async def test_strict_clients_accept_it_for_its_names_only(
    tmp_path: Path, name: str, error: str
) -> None:
    made = self_signed(
        ["Box.Example.com", "192.168.1.20", "2001:db8::1", "*.lan.example"], tmp_path
    )
    assert (await accepted(made, made.chain, name)).startswith(error)
    assert bool(await accepted(made, made.chain, name)) == bool(error)


def test_inspect_finds_nothing_wrong(tmp_path: Path) -> None:
    made = self_signed(default_domains(), tmp_path)
    found = inspect(settings(made))
    assert (found.errors, found.warnings) == ((), ())
    assert found.certificate is not None
    assert found.certificate.fingerprint == made.fingerprint
    assert found.certificate.names[0] == "localhost"
    assert set(found.certificate.names) == set(made.names)


def test_certificates_have_the_extensions_that_clients_ask_for(tmp_path: Path) -> None:
    made = self_signed(["box.lan"], tmp_path, days=30)
    leaf = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    ca = x509.load_pem_x509_certificate(made.chain.read_bytes())

    def value(certificate: x509.Certificate, kind: type) -> Any:
        return certificate.extensions.get_extension_for_class(kind)

    assert value(leaf, x509.BasicConstraints).value.ca is False
    assert value(ca, x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    assert value(ca, x509.KeyUsage).value.key_cert_sign
    assert not value(ca, x509.KeyUsage).value.digital_signature
    assert not value(leaf, x509.KeyUsage).value.key_cert_sign
    assert all(
        value(it, kind).critical
        for it in (leaf, ca)
        for kind in (x509.BasicConstraints, x509.KeyUsage)
    )
    assert list(value(leaf, x509.ExtendedKeyUsage).value) == [
        x509.oid.ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert (
        value(leaf, x509.AuthorityKeyIdentifier).value.key_identifier
        == value(ca, x509.SubjectKeyIdentifier).value.digest
    )
    key = leaf.public_key()
    assert isinstance(key, EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert made.not_after - datetime.now(UTC) == pytest.approx(
        timedelta(days=30), abs=timedelta(minutes=5)
    )


def test_the_longest_life_is_one_that_browsers_take(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    made = self_signed(["box.lan"], tmp_path, days=MAX_DAYS)
    leaf = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < timedelta(days=398)
    for days in (0, -1, MAX_DAYS + 1):
        with subtests.test(f"{days!r:.80}"), pytest.raises(ValueError, match="days must be"):
            self_signed(["box.lan"], tmp_path / "other", days=days)


def test_only_the_owner_can_read_the_keys(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = self_signed(["box.lan"], tmp_path)
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {
        "box.lan-key.pem": 0o600,
        "box.lan-crt.pem": 0o644,
        "box.lan-chain.pem": 0o644,
        "local-ca-key.pem": 0o600,
        "local-ca-crt.pem": 0o644,
    }
    assert made.ca_made


async def test_who_trusts_the_authority_accepts_the_next_certificate_too(tmp_path: Path) -> None:
    first = self_signed(["one.lan"], tmp_path)
    trusted = tmp_path / "copied.crt"
    shutil.copy(first.chain, trusted)

    second = self_signed(["two.lan"], tmp_path)
    again = self_signed(["one.lan"], tmp_path, force=True)

    assert (first.ca_made, second.ca_made, again.ca_made) == (True, False, False)
    assert await accepted(second, trusted, "two.lan") == ""
    assert await accepted(again, trusted, "one.lan") == ""


def test_existing_files_are_refused_or_kept(tmp_path: Path) -> None:
    bought = tmp_path / "box.lan-key.pem"
    bought.write_text("a key that was paid for")

    with pytest.raises(FileExistsError, match=r"box\.lan-key\.pem"):
        self_signed(["box.lan"], tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["box.lan-key.pem"]

    made = self_signed(["box.lan"], tmp_path, force=True)
    (backup,) = made.backups
    assert backup.read_text() == "a key that was paid for"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: (d / "local-ca-key.pem").unlink(), "half of the authority is missing"),
        (lambda d: (d / "local-ca-crt.pem").unlink(), "half of the authority is missing"),
        (lambda d: (d / "local-ca-crt.pem").write_text("no"), "cannot be read"),
        (lambda d: shutil.copy(d / "a.lan-key.pem", d / "local-ca-key.pem"), "does not belong"),
    ],
)
def test_a_spoiled_authority_is_said_and_nothing_is_lost(
    tmp_path: Path, spoil: Any, said: str
) -> None:
    self_signed(["a.lan"], tmp_path)
    spoil(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    with pytest.raises(ValueError, match=said):
        self_signed(["a.lan"], tmp_path, force=True)

    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_authority_near_its_end_signs_no_longer_than_it_lives(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    self_signed(["a.lan"], tmp_path, now=now - timedelta(days=3600))
    made = self_signed(["b.lan"], tmp_path, now=now)
    ca = x509.load_pem_x509_certificate(made.chain.read_bytes())
    assert made.not_after == ca.not_valid_after_utc
    with pytest.raises(ValueError, match="expired on"):
        self_signed(["c.lan"], tmp_path, now=now + timedelta(days=100))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("localhost", "localhost"),
        ("Example.COM.", "example.com"),
        ("*.example.com", "*.example.com"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        ("münchen.de", "xn--mnchen-3ya.de"),
        ("127.0.0.1", ipaddress.ip_address("127.0.0.1")),
        ("::1", ipaddress.ip_address("::1")),
    ],
)
def test_names_are_read_as_domains_and_addresses(text: str, name: object) -> None:
    assert parse_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "../x",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "a\0b",
        "a b",
        "a\nb",
        "-a.example",
        "a..b",
        "a_b.example",
        "x" * 64,
        ".".join(["x" * 60] * 5),
        "*",
        "*.",
        "*.com",
        "a.*.com",
        "**.example.com",
        "256.1.1.1",
        "1.2.3",
        "fe80::1%eth0",
        "example.com:8443",
        "https://example.com",
        "host@example.com",
    ],
)
def test_name_that_no_certificate_may_carry_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not a|name|label|zone"):
        self_signed([text], tmp_path / "ssl")
    assert list(tmp_path.iterdir()) == []


def test_file_is_named_after_the_first_domain(tmp_path: Path) -> None:
    assert file_stem(parse_name("*.example.com")) == "_wildcard.example.com"
    assert file_stem(parse_name("2001:db8::1")) == "2001_db8__1"
    with pytest.raises(ValueError, match="at least one"):
        self_signed([], tmp_path)
    with pytest.raises(ValueError, match="cannot come first"):
        self_signed(["local-ca"], tmp_path)


async def models_server(made: SelfSigned) -> tuple[web.AppRunner, str]:
    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "demo", "object": "model"}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    context = await asyncio.to_thread(build_context, settings(made))
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    return runner, f"https://localhost:{runner.addresses[0][1]}/v1"


OPENAI = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="x", max_retries=0)
print(client.models.list().data)
"""


@pytest.mark.parametrize("client", ["openai", "curl"])
async def test_clients_accept_it_by_the_printed_advice(tmp_path: Path, client: str) -> None:
    """``SSL_CERT_FILE`` for the openai client, ``--cacert`` for curl; neither without them."""
    if client == "curl" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    made = self_signed(["localhost", "127.0.0.1"], tmp_path)
    runner, url = await models_server(made)
    env = {k: v for k, v in os.environ.items() if k not in ("SSL_CERT_FILE", "CURL_CA_BUNDLE")}

    async def call(*, trusting: bool) -> tuple[int | None, bytes]:
        if client == "curl":
            advice = ["--cacert", str(made.chain)] if trusting else []
            command = ["curl", "-sS", "--max-time", "20", *advice, f"{url}/models"]
        else:
            command = [
                sys.executable,
                "-c",
                OPENAI,
                url,
            ]
        extra = {"SSL_CERT_FILE": str(made.chain)} if trusting and client == "openai" else {}
        process = await asyncio.create_subprocess_exec(
            *command,
            env=env | extra,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode, out + err

    try:
        code, said = await call(trusting=True)
        assert (code, b"demo" in said) == (0, True), said
        code, said = await call(trusting=False)
        assert code
        assert b"certificate" in said
    finally:
        await runner.cleanup()
