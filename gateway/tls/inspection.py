"""Inspects the configured key, certificate and chain: what is wrong, and how to repair it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gateway.config.settings import TlsSettings
from gateway.problems import Problem
from gateway.tls import pem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate, Name

FILE = "conf/gateway.yaml"  # where a problem is said to be when the caller doesn't know better
LOCAL_CA = "LLM-API Gateway local CA"  # how the authority of `tls self-signed` is called
_MAX_BYTES = 2**20  # a chain is some kilobytes; a model named by mistake must not be read
_MIN_RSA_BITS = 2048  # OpenSSL's security level 2 refuses less, and so do browsers


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """The server's certificate: its names, its end (UTC), its SHA-256 as 64 hex digits.

    ``local``: signed by itself or by the authority of ``tls self-signed``. ``issuer``: its
    organisation and common name, else all of its name (RFC 4514).
    """

    names: tuple[str, ...]
    not_after: datetime
    fingerprint: str
    local: bool
    not_before: datetime
    issuer: str


class Inspection(NamedTuple):
    """The result of an inspection. ``errors``: it can't be served, or no client would accept it.
    ``warnings``: it works, but.
    """

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    certificate: CertificateInfo | None


class _Report:
    def __init__(self, file: str) -> None:
        self.file = file
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def error(self, key: str, path: Path | None, message: str) -> None:
        self.errors.append(self._problem(key, path, message))

    def warning(self, key: str, path: Path | None, message: str) -> None:
        self.warnings.append(self._problem(key, path, message))

    def _problem(self, key: str, path: Path | None, message: str) -> Problem:
        return Problem(self.file, f"tls.{key}", str(path) if path else None, message)


def inspect(tls: TlsSettings, *, now: datetime | None = None, file: str = FILE) -> Inspection:
    """Return everything that is wrong with these files at ``now`` (aware; default: this moment).

    ``file`` is where the settings came from, for the problems. The caller decides whether TLS is
    enabled at all. Blocks: call it in a thread. A key that other users of the machine can read is a
    warning: it works, and on a machine with one user nothing is lost yet.
    """
    report = _Report(file)
    key_data = _read(report, "private_key", tls.private_key, required=True)
    certificate_data = _read(report, "certificate", tls.certificate, required=True)
    chain_data = _read(report, "ca_chain", tls.ca_chain, required=False)

    private_key = _private_key(report, tls, key_data) if key_data is not None else None
    own = _certificates(report, "certificate", tls.certificate, certificate_data)
    extra = _certificates(report, "ca_chain", tls.ca_chain, chain_data)
    if not own:
        return Inspection(tuple(report.errors), tuple(report.warnings), None)

    if private_key is not None:
        _check_match(report, tls, private_key, own)
    _check_times(report, tls, own[0], now or datetime.now(UTC))
    chain = list(dict.fromkeys((*own, *extra)))
    if extra or tls.ca_chain is None:  # else the chain's own error says enough
        _check_chain(report, tls, chain, now or datetime.now(UTC))
    info = _info(own[0])
    if not info.names:
        report.warning(
            "certificate",
            tls.certificate,
            "names no host (subjectAltName): clients accept it for none",
        )
    return Inspection(tuple(report.errors), tuple(report.warnings), info)


def _read(report: _Report, key: str, path: Path | None, *, required: bool) -> bytes | None:
    if path is None:
        if required:
            report.error(
                key,
                None,
                "is missing: tls.enabled needs a PEM file here, and `llm-gateway tls self-signed` "
                "makes one",
            )
        return None
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            report.error(key, path, "is not a PEM file")
            return None
        data = path.read_bytes()
    except OSError as error:
        report.error(key, path, f"cannot be read: {error.strerror}")
        return None
    if key == "private_key" and os.name == "posix" and status.st_mode & stat.S_IROTH:
        report.warning(
            key, path, f"can be read by every user of this machine: chmod {_safe_mode(status)} it"
        )
    return data


def _safe_mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode) & 0o770:o}"


def _private_key(report: _Report, tls: TlsSettings, data: bytes) -> PrivateKeyTypes | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    block = pem.private_key(data)
    if block is None:
        held = ", ".join(dict.fromkeys(pem.labels(data))) or "no PEM at all"
        report.error("private_key", tls.private_key, f"holds no private key in PEM, but {held}")
        return None
    given = tls.passphrase.reveal() if tls.passphrase else None
    if block.encrypted and given is None:
        report.error("passphrase", None, "is missing: the private key is encrypted")
        return None
    if given is not None and not block.encrypted:
        report.warning("passphrase", None, "is not used: the private key is not encrypted")
    try:
        key = load_pem_private_key(
            block.pem, given.encode() if given is not None and block.encrypted else None
        )
    except UnsupportedAlgorithm as error:
        report.error("private_key", tls.private_key, f"is of a kind not supported here: {error}")
        return None
    except (ValueError, TypeError):
        # The reason is not repeated: for an encrypted key it can depend on the passphrase.
        if block.encrypted:
            report.error("passphrase", None, "is wrong: it does not open the private key")
        else:
            report.error("private_key", tls.private_key, "is damaged")
        return None
    if isinstance(key, RSAPrivateKey) and key.key_size < _MIN_RSA_BITS:
        report.error(
            "private_key",
            tls.private_key,
            f"is an RSA key of {key.key_size} bits; {_MIN_RSA_BITS} are needed",
        )
    return key


def _certificates(
    report: _Report, key: str, path: Path | None, data: bytes | None
) -> list[Certificate]:
    """Return every certificate in the file; after an error none."""
    from cryptography.x509 import load_der_x509_certificate

    if data is None:
        return []
    encoded = pem.certificates(data)
    if not encoded:
        held = ", ".join(dict.fromkeys(pem.labels(data))) or "no PEM at all"
        report.error(key, path, f"holds no certificate in PEM, but {held}")
    loaded = []
    for number, der in enumerate(encoded, start=1):
        try:
            loaded.append(load_der_x509_certificate(der))
        except ValueError:
            report.error(key, path, f"is damaged in certificate {number} of {len(encoded)}")
            return []
    return loaded


def _check_match(
    report: _Report, tls: TlsSettings, key: PrivateKeyTypes, own: Sequence[Certificate]
) -> None:
    public = _encoded(key.public_key())
    matching = [n for n, it in enumerate(own, start=1) if _encoded(it.public_key()) == public]
    if not matching:
        report.error(
            "private_key", tls.private_key, f"does not belong to the certificate {tls.certificate}"
        )
    elif matching[0] != 1:
        report.error(
            "certificate",
            tls.certificate,
            f"must begin with the server's own certificate, which is number {matching[0]} in it",
        )


def _encoded(public_key: object) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return public_key.public_bytes(  # type: ignore[attr-defined,no-any-return]
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )


def _check_times(report: _Report, tls: TlsSettings, own: Certificate, now: datetime) -> None:
    start, end = own.not_valid_before_utc, own.not_valid_after_utc
    soon = min((end - start) * 0.15, timedelta(days=14))  # a six-day certificate: its last day
    if now < start:
        report.error(
            "certificate", tls.certificate, f"is not valid before {start:%Y-%m-%d %H:%M} UTC"
        )
    elif now > end:
        report.error("certificate", tls.certificate, f"expired on {end:%Y-%m-%d %H:%M} UTC")
    elif end - now < soon:
        report.warning("certificate", tls.certificate, f"expires on {end:%Y-%m-%d %H:%M} UTC")


def _check_chain(
    report: _Report, tls: TlsSettings, chain: Sequence[Certificate], now: datetime
) -> None:
    """Check whether each certificate is signed by another one of the chain, up to the last.

    The root may be missing, because clients have it. The order doesn't matter: TLS 1.3 clients must
    accept any (RFC 8446, 4.4.2), and others do.
    """
    where = ("ca_chain", tls.ca_chain) if tls.ca_chain else ("certificate", tls.certificate)
    used, current = {chain[0]}, chain[0]
    while not _signs(current, current):
        issuer = next((it for it in chain if it not in used and _signs(it, current)), None)
        if issuer is None:
            break
        if not issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc:
            # Further up it may be a cross-signature that clients no longer need.
            tell = report.error if len(used) == 1 else report.warning
            end = issuer.not_valid_after_utc
            tell(*where, f"{issuer.subject.rfc4514_string()} in it is not valid now (to {end:%F})")
        used.add(issuer)
        current = issuer
    complete = _signs(current, current)
    if len(used) == 1 < len(chain) and not complete:
        report.error(*where, f"does not sign the certificate {tls.certificate}")
    elif len(used) < len(chain):
        report.warning(*where, f"holds {len(chain) - len(used)} certificates that do not belong")
    elif len(chain) == 1 and not complete:
        report.warning(
            "ca_chain",
            None,
            "is not set, and the certificate file holds no chain: clients accept it only if they "
            f"know its issuer, {chain[0].issuer.rfc4514_string()}",
        )


def _signs(issuer: Certificate, certificate: Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _info(certificate: Certificate) -> CertificateInfo:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509 import DNSName, ExtensionNotFound, IPAddress, SubjectAlternativeName

    try:
        alternative = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
        names = (
            *alternative.get_values_for_type(DNSName),
            *(str(address) for address in alternative.get_values_for_type(IPAddress)),
        )
    except (ExtensionNotFound, ValueError):  # none, or one that cannot be read
        names = ()
    issuer = certificate.issuer
    return CertificateInfo(
        names,
        certificate.not_valid_after_utc,
        certificate.fingerprint(SHA256()).hex(),
        issuer == certificate.subject or LOCAL_CA in issuer.rfc4514_string(),
        certificate.not_valid_before_utc,
        _called(issuer),
    )


def _called(name: Name) -> str:
    """Return the name of an authority: its organisation says more than a common name like
    ``R11``.
    """
    from cryptography.x509.oid import NameOID

    found = [
        str(attribute.value)
        for oid in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)
        for attribute in name.get_attributes_for_oid(oid)[:1]
    ]
    return ", ".join(dict.fromkeys(found)) or name.rfc4514_string()
