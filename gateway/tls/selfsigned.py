"""A small local certificate authority, and a server certificate signed by it.

It is for a machine without a public name, or for trying things out: clients that trust the
authority (one file, once) accept every certificate made by it later.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.names import Name, file_stem, parse_name
from gateway.private_files import make_folder
from gateway.tls.files import write_whole
from gateway.tls.inspection import LOCAL_CA

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, CertificateBuilder, ExtensionType
    from cryptography.x509 import Name as DistinguishedName

MAX_DAYS = 397  # Apple and the browsers refuse more than 398 (CA/B Forum ballot SC-31)
DEFAULT_DAYS = MAX_DAYS
_CA_DAYS = 3650
_CA = "local-ca"
_SKEW = timedelta(hours=1)  # a client's clock may be a little behind


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """What was made, and where it is."""

    private_key: Path
    certificate: Path
    chain: Path  # the authority's certificate, which clients must trust
    ca_made: bool  # False: the authority was there already
    names: tuple[str, ...]
    not_after: datetime
    fingerprint: str  # SHA-256 of the server's certificate, 64 hex digits
    backups: tuple[Path, ...]  # files that were there before, under their new names


def self_signed(
    domains: Iterable[str],
    out_dir: Path,
    *,
    days: int = DEFAULT_DAYS,
    force: bool = False,
    now: datetime | None = None,
) -> SelfSigned:
    """Write ``D-key.pem``, ``D-crt.pem`` and ``D-chain.pem``, D being the first domain.

    The authority (``local-ca-key.pem``, ``local-ca-crt.pem``) is made once and reused. Raises
    ValueError for a bad name, number of days or authority, and FileExistsError if a file exists
    already; with ``force`` that file is renamed to ``*.bak``. Blocks.
    """
    names = tuple(dict.fromkeys(parse_name(domain.strip()) for domain in domains))
    if not names:
        raise ValueError("at least one domain is needed")
    if not 1 <= days <= MAX_DAYS:
        raise ValueError(f"days must be from 1 to {MAX_DAYS}: browsers refuse more (got {days})")
    stem = file_stem(names[0])
    if stem == _CA:
        raise ValueError(f"{_CA!r} cannot come first: the authority's own files are called so")
    key_file, certificate_file, chain_file = (
        out_dir / f"{stem}-{part}.pem" for part in ("key", "crt", "chain")
    )
    existing = [file for file in (key_file, certificate_file, chain_file) if file.exists()]
    if existing and not force:
        raise FileExistsError(
            f"{', '.join(map(str, existing))}: already there; --force makes new ones and keeps "
            "the old as *.bak"
        )
    start = (now or datetime.now(UTC)) - _SKEW
    make_folder(out_dir)
    ca_key, ca, ca_made = _authority(out_dir, start)
    key, certificate = _leaf(names, ca_key, ca, start, timedelta(days=days) + _SKEW)

    backups = tuple(file.with_name(f"{file.name}.bak") for file in existing)
    for file, backup in zip(existing, backups, strict=True):
        file.replace(backup)
    write_whole(key_file, _key_pem(key), secret=True)
    write_whole(certificate_file, _pem(certificate))
    write_whole(chain_file, _pem(ca))
    return SelfSigned(
        private_key=key_file,
        certificate=certificate_file,
        chain=chain_file,
        ca_made=ca_made,
        names=tuple(str(name) for name in names),
        not_after=certificate.not_valid_after_utc,
        fingerprint=_fingerprint(certificate),
        backups=backups,
    )


def _authority(folder: Path, start: datetime) -> tuple[EllipticCurvePrivateKey, Certificate, bool]:
    """Return the authority of this folder: key, certificate, and whether it was just made."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key_file, certificate_file = folder / f"{_CA}-key.pem", folder / f"{_CA}-crt.pem"
    remedy = f"move {key_file} and {certificate_file} away and a new authority is made"
    if not key_file.exists() and not certificate_file.exists():
        key, ca = _new_authority(start)
        write_whole(key_file, _key_pem(key), secret=True)
        write_whole(certificate_file, _pem(ca))
        return key, ca, True
    try:
        loaded = load_pem_private_key(key_file.read_bytes(), None)
        ca = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"half of the authority is missing, {error.filename}: {remedy}") from None
    except (ValueError, TypeError):
        raise ValueError(f"the authority cannot be read: {remedy}") from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != ca.public_key():
        raise ValueError(f"the authority's key does not belong to its certificate: {remedy}")
    if ca.not_valid_after_utc <= start + timedelta(days=1):
        raise ValueError(f"the authority expired on {ca.not_valid_after_utc:%Y-%m-%d}: {remedy}")
    return loaded, ca, False


def _new_authority(start: datetime) -> tuple[EllipticCurvePrivateKey, Certificate]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # Two authorities with one name and different keys would confuse clients that trust both.
    name = _common_name(f"{LOCAL_CA} {secrets.token_hex(4)}")
    builder = _builder(name, name, key, start, start + timedelta(days=_CA_DAYS))
    builder = _extend(
        builder,
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_key_usage(key_cert_sign=True, crl_sign=True), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    )
    return key, _sign(builder, key)


def _leaf(
    names: tuple[Name, ...],
    ca_key: EllipticCurvePrivateKey,
    ca: Certificate,
    start: datetime,
    life: timedelta,
) -> tuple[EllipticCurvePrivateKey, Certificate]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    first = str(names[0])
    # Clients read the alternative names only; the common name is for people, 64 characters long.
    subject = _common_name(first if len(first) <= 64 else "LLM-API Gateway")
    end = min(start + life, ca.not_valid_after_utc)
    builder = _builder(subject, ca.subject, key, max(start, ca.not_valid_before_utc), end)
    alternative = x509.SubjectAlternativeName(
        [x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name) for name in names]
    )
    issuer = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = _extend(
        builder,
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (alternative, False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), False),
    )
    return key, _sign(builder, ca_key)


def _common_name(text: str) -> DistinguishedName:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])


def _builder(
    subject: DistinguishedName,
    issuer: DistinguishedName,
    key: EllipticCurvePrivateKey,
    start: datetime,
    end: datetime,
) -> CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
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


def _sign(builder: CertificateBuilder, key: EllipticCurvePrivateKey) -> Certificate:
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


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pem(certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _fingerprint(certificate: Certificate) -> str:
    from cryptography.hazmat.primitives.hashes import SHA256

    return certificate.fingerprint(SHA256()).hex()
