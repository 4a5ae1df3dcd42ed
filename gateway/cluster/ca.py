"""The cluster's own authority, and the certificates by which its machines know each other.

Both ends of a connection show a certificate of that authority, and trust no other. The name in it
is made from a node's own, not from its address, which may change. A private key never leaves the
machine that it was made on: a node sends :attr:`Request.text` and gets a certificate back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.names import parse_name
from gateway.private_files import make_folder
from gateway.secret import Secret
from gateway.tls.authority import authority
from gateway.tls.issuing import certificate_pem, key_pem, new_key, sign

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.x509 import Certificate

#: Days for which a certificate is valid: it is made anew at each start, and by whoever runs longer.
DAYS: Final = 90
_STEM: Final = "ca"
_CALLED: Final = "LLM-API Gateway cluster"
_ZONE: Final = "node.llm-gateway.internal"  # .internal: no public name (ICANN, 2024)
_LABEL: Final = re.compile(r"(?!n-)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
#: How far the clock of a machine may be behind: home boxes without a battery begin in the past.
_SKEW: Final = timedelta(days=1)


def server_name(node: str) -> str:
    """Return the name that the certificate of a node is for: another for each name of a node."""
    if _LABEL.fullmatch(node):
        return f"{node}.{_ZONE}"
    return f"n-{hashlib.sha256(node.encode()).hexdigest()[:32]}.{_ZONE}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate, its key, and the authorities that others must be certified by. All PEM."""

    certificate: bytes
    private_key: Secret
    authorities: bytes
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a certificate (PKCS #10): its ``text`` (PEM) is sent, its key stays here."""

    text: bytes
    private_key: Secret

    @classmethod
    def make(cls) -> Request:
        """Return a request with a new key."""
        from cryptography import x509
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding

        key = new_key()
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        text = request.sign(key, SHA256()).public_bytes(Encoding.PEM)
        return cls(text, Secret(key_pem(key).decode()))

    def granted(self, certificate: bytes, authorities: bytes) -> Credentials:
        """Return what the ``certificate`` makes of it. Raises ValueError if it is for another
        key.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        loaded = x509.load_pem_x509_certificate(certificate)
        key = load_pem_private_key(self.private_key.reveal().encode(), None)
        if loaded.public_key() != key.public_key():
            raise ValueError("the certificate is for another key")
        return Credentials(certificate, self.private_key, authorities, loaded.not_valid_after_utc)


class Authority:
    """The authority of one cluster. Made by :meth:`open`."""

    def __init__(self, key: EllipticCurvePrivateKey, certificate: Certificate) -> None:
        self._key = key
        self._certificate = certificate
        #: Its certificate, which every machine of the cluster must trust.
        self.pem = certificate_pem(certificate)

    @classmethod
    def open(cls, folder: Path) -> Authority:
        """Return the authority whose files are in ``folder``, made by the first call.

        Raises ``OSError``, and ValueError where the files can't be used. Blocks.
        """
        make_folder(folder)
        number = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)  # two that start at once make one authority
            key, certificate, _ = authority(folder, _STEM, _CALLED, datetime.now(UTC) - _SKEW)
        finally:
            os.close(number)
        return cls(key, certificate)

    def sign(
        self, request: bytes, *names: str, server: bool, client: bool, days: float = DAYS
    ) -> bytes:
        """Return a certificate (PEM) for the key of ``request`` and these names or addresses.

        Nothing but the key is taken from the request. Raises ValueError for one that is none.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

        asked = x509.load_pem_x509_csr(request)
        key = asked.public_key()
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
            raise ValueError("the request must have a key of the curve P-256")
        if not asked.is_signature_valid:
            raise ValueError("who has sent the request does not have its key")
        return certificate_pem(self._sign(key, names, server=server, client=client, days=days))

    def issue(self, *names: str, server: bool, client: bool, days: float = DAYS) -> Credentials:
        """Return a certificate for a new key, to be used in this process."""
        key = new_key()
        made = self._sign(key.public_key(), names, server=server, client=client, days=days)
        private = Secret(key_pem(key).decode())
        return Credentials(certificate_pem(made), private, self.pem, made.not_valid_after_utc)

    def _sign(
        self,
        key: EllipticCurvePublicKey,
        names: tuple[str, ...],
        *,
        server: bool,
        client: bool,
        days: float,
    ) -> Certificate:
        if not names:
            raise ValueError("at least one name is needed")
        if not (server or client):
            raise ValueError("a certificate must be for a server, a client, or both")
        now = datetime.now(UTC)
        return sign(
            key,
            [parse_name(name) for name in names],
            names[0][:64],
            self._key,
            self._certificate,
            now - _SKEW,
            now + timedelta(days=days),
            server=server,
            client=client,
        )


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """Return a context that serves those alone who have a certificate of the cluster. Blocks."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, credentials)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # nobody resumes a session
    return context


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """Return a context that trusts the cluster's authority and no other. Blocks.

    The name that the server must have is to be given at each connection (:func:`server_name`).
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, credentials)


def renew(context: ssl.SSLContext, credentials: Credentials) -> None:
    """Show a new certificate from now on, and trust its authorities, too; open connections go on
    with the old one. Blocks.
    """
    context.load_verify_locations(cadata=credentials.authorities.decode("ascii"))
    with _readable(credentials) as file:
        context.load_cert_chain(file)


def _context(protocol: ssl._SSLMethod, credentials: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # both ends are ours
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    renew(context, credentials)
    return context


@contextlib.contextmanager
def _readable(credentials: Credentials) -> Iterator[str]:
    """Yield the path of certificate and key: OpenSSL reads them from a file alone.

    One in memory, where there is such a thing: what was on a disk may be found there later.
    """
    both = credentials.certificate + credentials.private_key.reveal().encode()
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("llm-gateway", os.MFD_CLOEXEC)
        with os.fdopen(number, "wb") as file:
            file.write(both)
            file.flush()
            yield f"/proc/self/fd/{number}"
    else:
        with tempfile.NamedTemporaryFile(prefix="llm-gateway-", suffix=".pem") as named:
            named.write(both)
            named.flush()
            yield named.name
