"""Secrets for one node, which whoever carries them can't read: Ray's messages aren't encrypted.

A key is agreed on with the one that the node's request for a certificate is signed with, by an
ephemeral one of ours (ECDH on P-256), and used once (HKDF with SHA-256, AES-256-GCM). That is what
RFC 9180 does, for which the library has functions since its version 47 only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.cluster.ca import Request
from gateway.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

_POINT: Final = 65  # bytes of a point of P-256 as it is sent: 4, x, y
_INFO: Final = b"llm-gateway sealed 1"
#: A key is used for one text, so that one nonce is enough.
_NONCE: Final = bytes(12)


def seal(text: Secret, request: bytes) -> bytes:
    """Return ``text`` for the node that has sent ``request`` (see :class:`.ca.Request`).

    Raises ValueError for a request that is none, or of another kind of key.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    theirs = x509.load_pem_x509_csr(request).public_key()
    if not isinstance(theirs, ec.EllipticCurvePublicKey):
        raise ValueError("the request must have a key of the curve P-256")
    ours = ec.generate_private_key(ec.SECP256R1())
    point = _sent(ours.public_key())
    key = _key(ours.exchange(ec.ECDH(), theirs), point, _sent(theirs))
    return point + AESGCM(key).encrypt(_NONCE, text.reveal().encode(), None)


def unseal(sealed: bytes, request: Request) -> Secret:
    """Return what was sealed for ``request``, of which the key is here. Raises ValueError."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    ours = load_pem_private_key(request.private_key.reveal().encode(), None)
    assert isinstance(ours, ec.EllipticCurvePrivateKey)
    point = sealed[:_POINT]
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    key = _key(ours.exchange(ec.ECDH(), theirs), point, _sent(ours.public_key()))
    try:
        return Secret(AESGCM(key).decrypt(_NONCE, sealed[_POINT:], None).decode())
    except InvalidTag:
        raise ValueError("what was sealed for this node cannot be opened") from None


def _sent(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _key(shared: bytes, *points: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), 32, salt=None, info=b"".join((_INFO, *points))).derive(shared)
