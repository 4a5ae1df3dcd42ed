"""A small local certificate authority, and a server certificate signed by it.

It is for a machine without a public name, or for trying things out: clients that trust the
authority (one file, once) accept every certificate made by it later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.names import Name, file_stem, parse_name
from gateway.private_files import make_folder
from gateway.tls.authority import authority
from gateway.tls.files import write_whole
from gateway.tls.inspection import LOCAL_CA
from gateway.tls.issuing import certificate_pem, key_pem, new_key, sign

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_DAYS = 397  # Apple and the browsers refuse more than 398 (CA/B Forum ballot SC-31)
DEFAULT_DAYS = MAX_DAYS
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
    ca_key, ca, ca_made = authority(out_dir, _CA, LOCAL_CA, start)
    key = new_key()
    end = start + timedelta(days=days) + _SKEW
    certificate = sign(key.public_key(), names, _subject(names), ca_key, ca, start, end)

    backups = tuple(file.with_name(f"{file.name}.bak") for file in existing)
    for file, backup in zip(existing, backups, strict=True):
        file.replace(backup)
    write_whole(key_file, key_pem(key), secret=True)
    write_whole(certificate_file, certificate_pem(certificate))
    write_whole(chain_file, certificate_pem(ca))
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


def _subject(names: tuple[Name, ...]) -> str:
    # Clients read the alternative names only; the common name is for people, 64 characters long.
    first = str(names[0])
    return first if len(first) <= 64 else "LLM-API Gateway"


def _fingerprint(certificate: Certificate) -> str:
    from cryptography.hazmat.primitives.hashes import SHA256

    return certificate.fingerprint(SHA256()).hex()
