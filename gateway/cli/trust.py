"""The certificate that a gateway shows, for a person to decide whether it is the right one."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.errors import BadRequest


@dataclass(frozen=True, slots=True)
class ShownChain:
    """The certificates that a server shows: its own first."""

    chain: Sequence[x509.Certificate]

    @property
    def certificate(self) -> x509.Certificate:
        """The server's own certificate."""
        return self.chain[0]

    @property
    def names(self) -> list[str]:
        """The host names and addresses that the certificate is for."""
        try:
            found = self.certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value
        except (x509.ExtensionNotFound, ValueError):
            return []
        return [
            *found.get_values_for_type(x509.DNSName),
            *map(str, found.get_values_for_type(x509.IPAddress)),
        ]

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the server's certificate as 64 hex digits, as `llm-gateway tls`
        shows it.
        """
        return self.certificate.fingerprint(SHA256()).hex()

    def has(self, fingerprint: str) -> bool:
        """Return whether this is the fingerprint of the server's certificate, or of one
        that signed it.
        """
        return any(one.fingerprint(SHA256()).hex() == fingerprint for one in self._signed_by())

    @property
    def anchor(self) -> bytes:
        """The PEM to trust: the topmost certificate that signed it, else the certificate itself.

        An authority stays right when the server gets its next certificate.
        """
        return self._signed_by()[-1].public_bytes(Encoding.PEM)

    def _signed_by(self) -> list[x509.Certificate]:
        """Yield the server's certificate, its issuer's, that one's issuer's, and so on, as far as
        shown.

        Each has really signed the one before it, so whoever vouches for the first vouches for all.
        """
        path = [self.certificate]
        while (issuer := self._issuer_of(path[-1])) is not None and issuer not in path:
            path.append(issuer)
        return path

    def _issuer_of(self, one: x509.Certificate) -> x509.Certificate | None:
        for other in self.chain:
            with contextlib.suppress(ValueError, TypeError, InvalidSignature):
                one.verify_directly_issued_by(other)
                return other
        return None


def shown_by(host: str, port: int, *, timeout: float) -> ShownChain:
    """Return what an address shows, without trusting it; nothing is sent. Raises ``OSError``."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((host, port), timeout) as connection,
        context.wrap_socket(connection, server_hostname=host) as tls,
    ):
        return ShownChain([x509.load_der_x509_certificate(der) for der in _chain(tls)])


def _chain(tls: ssl.SSLSocket) -> list[bytes]:
    """DER of each. ``SSLSocket.get_unverified_chain`` is public from Python 3.13 on.

    Before, its working half is there, on the object beneath. Without either, there is the server's
    own certificate, which can be trusted by itself.
    """
    if (public := getattr(tls, "get_unverified_chain", None)) is not None:
        return list(public())
    beneath: Any = getattr(tls, "_sslobj", None)
    if (private := getattr(beneath, "get_unverified_chain", None)) is not None:
        pems = "".join(one.public_bytes() for one in private())  # PEM is its default
        return [
            cert.public_bytes(Encoding.DER)
            for cert in x509.load_pem_x509_certificates(pems.encode())
        ]
    der = tls.getpeercert(binary_form=True)
    return [der] if der else []


def checked_fingerprint(text: str) -> str:
    """Return 64 hex digits, however they were written. Raises :class:`BadRequest`."""
    digits = re.sub(r"^sha-?256[:= ]|[:\s]", "", text.strip().lower())
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise BadRequest("--fingerprint: must be the 64 hex digits of a SHA-256")
    return digits
