"""Certificates of every kind, made on the spot, and a real TLS server on loopback."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gateway.config.settings import TlsSettings
from gateway.secret import Secret

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


@functools.cache
def rsa_key(number: int, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Slow to make, so the same ``number`` gets the same key in the whole run."""
    return rsa.generate_private_key(65537, bits)


@dataclass
class Pair:
    """A key and its certificate."""

    key: Any
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def key_pem(self, *, traditional: bool = False, passphrase: str | None = None) -> bytes:
        return self.key.private_bytes(
            Encoding.PEM,
            PrivateFormat.TraditionalOpenSSL if traditional else PrivateFormat.PKCS8,
            BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption(),
        )


def issue(
    issuer: Pair | None = None,
    *,
    name: str = "localhost",
    key: Any = None,
    authority: bool = False,
    start: datetime.datetime = NOW - DAY,
    end: datetime.datetime = NOW + 90 * DAY,
    named: bool = True,
) -> Pair:
    """A certificate signed by ``issuer``, or by itself.

    With the extensions of RFC 5280, 4.2.1.1 to 4.2.1.3, without which clients that verify strictly
    (Python's own from 3.13 on) refuse a chain.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer = (issuer.key if issuer else key).public_key()
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )
    if authority:
        builder = builder.add_extension(_SIGNS, critical=True)
    if named and not authority:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name), address]), critical=False
        )
    return Pair(key, builder.sign(issuer.key if issuer else key, SHA256()))


@dataclass
class Forge:
    """Makes pairs, and the files and settings they lie in."""

    folder: Path
    issue: Callable[..., Pair] = issue
    rsa_key: Callable[..., rsa.RSAPrivateKey] = rsa_key
    now: datetime.datetime = NOW

    def __post_init__(self) -> None:
        life: Any = {"start": NOW - 1000 * DAY, "end": NOW + 1000 * DAY}
        self.root = issue(name="Test root", authority=True, **life)
        self.middle = issue(self.root, name="Test intermediate", authority=True, **life)

    def client(self) -> ssl.SSLContext:
        """One that trusts the root alone, and verifies as Python's own clients do since 3.13."""
        context = ssl.create_default_context(cadata=self.root.pem.decode())
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    def write(
        self,
        pair: Pair,
        *chain: Pair,
        key: bytes | None = None,
        certificate: bytes | None = None,
        passphrase: str | None = None,
        traditional: bool = False,
    ) -> TlsSettings:
        """``x-key.pem``, ``x-crt.pem`` and, where there is a chain, ``x-chain.pem``."""
        files = {
            "key": key or pair.key_pem(passphrase=passphrase, traditional=traditional),
            "crt": certificate or pair.pem,
            "chain": b"".join(it.pem for it in chain),
        }
        for part, data in files.items():
            path = self.folder / f"x-{part}.pem"
            path.write_bytes(data)
            path.chmod(0o600)
        return TlsSettings(
            enabled=True,
            private_key=self.folder / "x-key.pem",
            certificate=self.folder / "x-crt.pem",
            ca_chain=self.folder / "x-chain.pem" if chain else None,
            passphrase=Secret(passphrase) if passphrase is not None else None,
        )


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)
