"""An authority in two files: made once, and used for every certificate after that."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.tls.files import write_whole
from gateway.tls.issuing import certificate_pem, key_pem, new_authority

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

_DAYS = 3650


def authority(
    folder: Path, stem: str, called: str, start: datetime
) -> tuple[EllipticCurvePrivateKey, Certificate, bool]:
    """Return an authority of this folder: key, certificate, and whether it was just made.

    Its files are ``STEM-key.pem`` and ``STEM-crt.pem``; a new one is valid from ``start`` on.
    Raises ValueError where it can't be used, and ``OSError``. Blocks.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key_file, certificate_file = folder / f"{stem}-key.pem", folder / f"{stem}-crt.pem"
    remedy = f"move {key_file} and {certificate_file} away and a new authority is made"
    if not key_file.exists() and not certificate_file.exists():
        # Two authorities with one name and different keys would confuse clients that trust both.
        name = f"{called} {secrets.token_hex(4)}"
        key, ca = new_authority(name, start, start + timedelta(days=_DAYS))
        write_whole(key_file, key_pem(key), secret=True)
        write_whole(certificate_file, certificate_pem(ca))
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
