"""Proofs to an ACME authority that we control a name: files over HTTP, certificates over TLS."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import tempfile
import weakref
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from gateway.names import parse_name

if TYPE_CHECKING:
    from gateway.tls.context import CertificateReloader

ALPN = "acme-tls/1"
_ALPN_EXTENSION = 16  # RFC 7301
_CLIENT_HELLO = 1
_TEMPORARY = timedelta(days=90)


class Challenges:
    """The proofs of the moment. Set up in the loop, filled from the thread that talks ACME."""

    def __init__(self, tokens: MutableMapping[str, str]) -> None:
        #: Token -> key authorization, for /.well-known/acme-challenge/.
        self.tokens = tokens
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._asking: weakref.WeakSet[ssl.SSLObject] = weakref.WeakSet()
        self._listening: ssl.SSLContext | None = None

    def attach(self, reloader: CertificateReloader) -> None:
        """Answer tls-alpn-01 on this listener."""
        self._listening = reloader.context
        reloader.special = self._special

    @contextlib.contextmanager
    def over_http(self, token: str, authorization: str) -> Iterator[None]:
        """Answer http-01 (RFC 8555, 8.3)."""
        self.tokens[token] = authorization
        try:
            yield
        finally:
            del self.tokens[token]

    @contextlib.contextmanager
    def over_tls(self, name: str, authorization: str) -> Iterator[None]:
        """Answer tls-alpn-01 (RFC 8737) for ``name``, a host name or an address. Blocks."""
        server_name = _server_name(name)
        self._contexts[server_name] = _proof(name, authorization)
        self._listen()
        try:
            yield
        finally:
            del self._contexts[server_name]
            self._listen()

    def _listen(self) -> None:
        # Only an authority may be shown the proof, ordinary clients of the same name may not;
        # it is told by the protocol it offers, and Python has no other way to see that. While
        # nothing is to be proved, nothing looks.
        assert self._listening is not None
        self._listening._msg_callback = self._read if self._contexts else None  # type: ignore[attr-defined]

    def _read(
        self, connection: ssl.SSLObject, direction: str, _v: Any, _c: Any, kind: int, data: bytes
    ) -> None:
        if direction == "read" and kind == _CLIENT_HELLO and ALPN in offered_protocols(data):
            self._asking.add(connection)

    def _special(self, connection: ssl.SSLObject, server_name: str | None) -> ssl.SSLContext | None:
        if connection in self._asking:
            return self._contexts.get((server_name or "").lower())
        return None


def offered_protocols(hello: bytes) -> list[str]:
    """Return what a ClientHello (RFC 8446, 4.1.2; with its header) offers by ALPN; [] if it
    is odd.
    """
    try:
        at = 4 + 2 + 32  # header, version, random
        at += 1 + hello[at]  # session id
        at += 2 + int.from_bytes(hello[at : at + 2])  # cipher suites
        at += 1 + hello[at]  # compression
        at += 2  # length of all extensions
        while at + 4 <= len(hello):
            kind = int.from_bytes(hello[at : at + 2])
            end = at + 4 + int.from_bytes(hello[at + 2 : at + 4])
            if kind == _ALPN_EXTENSION:
                return list(_strings(hello[at + 6 : end]))
            at = end
    except IndexError:
        pass
    return []


def _strings(data: bytes) -> Iterator[str]:
    at = 0
    while at < len(data):  # never copying the rest: there may be 65,000 of no length
        end = at + 1 + data[at]
        yield data[at + 1 : end].decode("latin-1")
        at = end


def _server_name(name: str) -> str:
    """Return the SNI that the authority sends; for an address its reversed name (RFC 8738, 6)."""
    parsed = parse_name(name)
    return parsed if isinstance(parsed, str) else parsed.reverse_pointer


def _proof(name: str, authorization: str) -> ssl.SSLContext:
    digest = sha256(authorization.encode()).digest()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    with tempfile.NamedTemporaryFile(prefix="llm-gateway-", suffix=".pem") as file:
        file.write(self_signed_pem((name,), acme_identifier=b"\x04\x20" + digest))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def self_signed_pem(names: tuple[str, ...], *, acme_identifier: bytes | None = None) -> bytes:
    """Return key and certificate that nobody trusts: a proof, or something to serve meanwhile.

    ``acme_identifier``: DER of the proof's extension (RFC 8737, 3). Takes about a millisecond.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "temporary")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _TEMPORARY)
        .add_extension(alternative_names(names), critical=False)
    )
    if acme_identifier is not None:
        oid = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
        builder = builder.add_extension(
            x509.UnrecognizedExtension(oid, acme_identifier), critical=True
        )
    certificate = builder.sign(key, SHA256())
    return key_pem(key) + certificate.public_bytes(Encoding.PEM)


def alternative_names(names: tuple[str, ...]) -> Any:
    """Return the subjectAltName of these host names and addresses."""
    from cryptography import x509

    parsed = [parse_name(name) for name in names]
    return x509.SubjectAlternativeName(
        [
            x509.DNSName(it) if isinstance(it, str) else x509.IPAddress(ipaddress.ip_address(it))
            for it in parsed
        ]
    )


def key_pem(key: Any) -> bytes:
    """Return a private key as unencrypted PKCS#8."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem
