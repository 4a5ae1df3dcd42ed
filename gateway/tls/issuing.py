"""Makes keys, authorities, and certificates that they sign. Pure; cryptography is imported when it
is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from gateway.names import Name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.x509 import Certificate, CertificateBuilder, ExtensionType
    from cryptography.x509 import Name as DistinguishedName


def new_key() -> EllipticCurvePrivateKey:
    """Return a new key, which every client of the last ten years can use."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def new_authority(
    name: str, start: datetime, end: datetime
) -> tuple[EllipticCurvePrivateKey, Certificate]:
    """Return an authority that signs certificates, and no other authorities."""
    from cryptography import x509

    key = new_key()
    subject = _common_name(name)
    builder = _builder(subject, subject, key.public_key(), start, end)
    builder = _extend(
        builder,
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_key_usage(key_cert_sign=True, crl_sign=True), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    )
    return key, _signed(builder, key)


def sign(
    public_key: EllipticCurvePublicKey,
    names: Iterable[Name],
    subject: str,
    ca_key: EllipticCurvePrivateKey,
    ca: Certificate,
    start: datetime,
    end: datetime,
    *,
    server: bool = True,
    client: bool = False,
) -> Certificate:
    """Return a certificate for ``names``, valid for no longer than the authority is."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    start, end = max(start, ca.not_valid_before_utc), min(end, ca.not_valid_after_utc)
    builder = _builder(_common_name(subject), ca.subject, public_key, start, end)
    alternative = x509.SubjectAlternativeName(
        [x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name) for name in names]
    )
    issuer = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    usages = []
    if server:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    if client:
        usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    builder = _extend(
        builder,
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage(usages), False),
        (alternative, False),
        (x509.SubjectKeyIdentifier.from_public_key(public_key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), False),
    )
    return _signed(builder, ca_key)


def key_pem(key: EllipticCurvePrivateKey) -> bytes:
    """Return the key as PEM, unencrypted."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_pem(certificate: Certificate) -> bytes:
    """Return the certificate as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _common_name(text: str) -> DistinguishedName:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])


def _builder(
    subject: DistinguishedName,
    issuer: DistinguishedName,
    key: EllipticCurvePublicKey,
    start: datetime,
    end: datetime,
) -> CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _extend(
    builder: CertificateBuilder, *extensions: tuple[ExtensionType, bool]
) -> CertificateBuilder:
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder


def _signed(builder: CertificateBuilder, key: EllipticCurvePrivateKey) -> Certificate:
    from cryptography.hazmat.primitives.hashes import SHA256

    return builder.sign(key, SHA256())


def _key_usage(**allowed: bool) -> ExtensionType:
    from cryptography.x509 import KeyUsage

    none = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return KeyUsage(**{**none, **allowed})
