"""Parsing PEM text (RFC 7468); no I/O, and nothing but the standard library."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_CERTIFICATE_LABELS = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE"})
_KEY_LABELS = frozenset(
    {b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY"}
)


class KeyBlock(NamedTuple):
    """One private key as it is in a file."""

    pem: bytes
    encrypted: bool


def certificates(data: bytes) -> list[bytes]:
    """Return the DER of each certificate in ``data``, in order.

    A block with damaged base64 gives ``b""``, so that the others keep their numbers.
    """
    found = []
    for match in _BLOCK.finditer(data):
        if match[1] in _CERTIFICATE_LABELS:
            try:
                found.append(base64.b64decode(b"".join(match[2].split()), validate=True))
            except binascii.Error:
                found.append(b"")
    return found


def private_key(data: bytes) -> KeyBlock | None:
    """Return the first private key that TLS can use: PKCS#8, or the older RSA and EC formats."""
    for match in _BLOCK.finditer(data):
        if match[1] in _KEY_LABELS:
            encrypted = match[1].startswith(b"ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in match[2]
            return KeyBlock(match[0] + b"\n", encrypted)
    return None


def labels(data: bytes) -> list[str]:
    """Return the labels of the blocks in the file."""
    return [match[1].decode() for match in _BLOCK.finditer(data)]


def served_chain(certificate: bytes, ca_chain: bytes) -> list[bytes]:
    """Return the DER that a handshake sends: the server's certificate, then those up to a root.

    None is there twice: win-acme's ``-chain.pem`` repeats the server's certificate, and other tools
    put the chain into both files.
    """
    return list(dict.fromkeys((*certificates(certificate), *certificates(ca_chain))))
