"""PEM files taken apart: order, duplicates, foreign blocks, line ends."""

from __future__ import annotations

import pytest

from gateway.tls import pem
from tests.tls.conftest import Forge


def test_what_is_sent_is_the_certificate_and_then_the_chain_each_once(forge: Forge) -> None:
    leaf = forge.issue(forge.middle)
    own = leaf.pem + forge.middle.pem
    chain = leaf.pem + forge.middle.pem + forge.root.pem
    assert pem.served_chain(own, chain) == [leaf.der, forge.middle.der, forge.root.der]
    assert pem.served_chain(leaf.pem, b"") == [leaf.der]


def test_comments_and_windows_line_ends_are_ignored(forge: Forge) -> None:
    leaf = forge.issue()
    text = b"subject=CN = localhost\r\n" + leaf.pem.replace(b"\n", b"\r\n") + b"trailing"
    assert pem.certificates(text) == [leaf.der]


def test_a_private_key_in_the_certificate_file_is_not_part_of_the_chain(forge: Forge) -> None:
    leaf = forge.issue()
    assert pem.served_chain(leaf.key_pem() + leaf.pem, b"") == [leaf.der]
    assert pem.labels(leaf.key_pem() + leaf.pem) == ["PRIVATE KEY", "CERTIFICATE"]


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("passphrase", [None, "x"])
def test_encrypted_keys_are_known_without_opening_them(
    forge: Forge, traditional: bool, passphrase: str | None
) -> None:
    pair = forge.issue()
    key = pair.key_pem(traditional=traditional, passphrase=passphrase)
    block = pem.private_key(pair.pem + key)
    assert block is not None
    assert block.encrypted == (passphrase is not None)
    assert block.pem == key


def test_keys_for_other_things_are_not_taken() -> None:
    ssh = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n"
    assert pem.private_key(ssh) is None
    assert pem.private_key(b"-----BEGIN PRIVATE KEY-----\ncut off") is None
