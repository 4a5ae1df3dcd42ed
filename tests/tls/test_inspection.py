"""Every way in which key, certificate and chain can be wrong has words of its own."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config.settings import TlsSettings
from gateway.problems import InvalidFiles
from gateway.secret import Secret
from gateway.tls import Inspection, build_context, inspect
from tests.tls.conftest import Forge

DAY = datetime.timedelta(days=1)


def only_error(found: Inspection) -> tuple[str, str]:
    (problem,) = found.errors
    assert problem.file == "conf/gateway.yaml"
    return problem.key, problem.message


def only_warning(found: Inspection) -> tuple[str, str]:
    assert found.errors == ()
    (problem,) = found.warnings
    return problem.key, problem.message


@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("passphrase", [None, "pa ss: wörd"])
def test_every_format_of_a_good_key_is_fine_and_can_be_served(
    forge: Forge, kind: str, traditional: bool, passphrase: str | None
) -> None:
    leaf = forge.issue(forge.middle, key=forge.rsa_key(1) if kind == "rsa" else None)
    tls = forge.write(leaf, forge.middle, traditional=traditional, passphrase=passphrase)

    found = inspect(tls)

    assert (found.errors, found.warnings) == ((), ())
    assert found.certificate is not None
    assert found.certificate.names == ("localhost", "127.0.0.1")
    assert found.certificate.not_after == leaf.certificate.not_valid_after_utc
    build_context(tls)


def test_the_chain_may_be_inside_the_certificate_file(forge: Forge) -> None:
    leaf = forge.issue(forge.middle)
    tls = forge.write(leaf, certificate=leaf.pem + forge.middle.pem)
    found = inspect(tls)
    assert (found.errors, found.warnings) == ((), ())


def test_the_chain_may_repeat_the_certificate_as_win_acme_writes_it(forge: Forge) -> None:
    leaf = forge.issue(forge.middle)
    found = inspect(forge.write(leaf, leaf, forge.middle))
    assert (found.errors, found.warnings) == ((), ())


def test_a_key_may_share_its_file_with_other_blocks(forge: Forge) -> None:
    # `openssl ecparam -genkey` writes the curve before the key.
    leaf = forge.issue()
    curve = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    tls = forge.write(leaf, key=curve + leaf.key_pem(traditional=True) + leaf.pem)
    assert inspect(tls).errors == ()
    build_context(tls)


@pytest.mark.parametrize("key", ["private_key", "certificate", "ca_chain"])
def test_missing_file_is_named(forge: Forge, key: str) -> None:
    tls = forge.write(forge.issue(forge.middle), forge.middle)
    path: Path = getattr(tls, key)
    path.unlink()
    assert only_error(inspect(tls)) == (f"tls.{key}", "cannot be read: No such file or directory")
    assert inspect(tls).errors[0].value == str(path)


@pytest.mark.parametrize("key", ["private_key", "certificate", "ca_chain"])
@pytest.mark.parametrize("content", [b"", b"\x30\x82\x01\x0a\xff\x00", b"not a pem\n"])
def test_a_file_that_is_not_pem_is_told(forge: Forge, key: str, content: bytes) -> None:
    tls = forge.write(forge.issue(forge.middle), forge.middle)
    getattr(tls, key).write_bytes(content)
    where, message = only_error(inspect(tls))
    assert where == f"tls.{key}"
    assert message.endswith("in PEM, but no PEM at all")


def test_file_that_is_something_else_is_told(forge: Forge) -> None:
    tls = forge.write(forge.issue())
    folder = replace(tls, certificate=forge.folder)
    assert only_error(inspect(folder)) == ("tls.certificate", "is not a PEM file")
    tls.private_key.write_bytes(b"x" * 2_000_000)
    assert only_error(inspect(tls)) == ("tls.private_key", "is not a PEM file")


def test_swapped_key_and_certificate_are_told(forge: Forge) -> None:
    tls = forge.write(forge.issue())
    swapped = replace(tls, private_key=tls.certificate, certificate=tls.private_key)
    assert [(problem.key, problem.message) for problem in inspect(swapped).errors] == [
        ("tls.private_key", "holds no private key in PEM, but CERTIFICATE"),
        ("tls.certificate", "holds no certificate in PEM, but PRIVATE KEY"),
    ]


def test_without_files_it_says_which_to_set() -> None:
    found = inspect(TlsSettings(enabled=True))
    assert [problem.key for problem in found.errors] == ["tls.private_key", "tls.certificate"]
    with pytest.raises(InvalidFiles, match=r"tls\.certificate: is missing"):
        build_context(TlsSettings(enabled=True))


@pytest.mark.parametrize("traditional", [False, True])
def test_passphrases_are_checked(forge: Forge, traditional: bool) -> None:
    tls = forge.write(forge.issue(), passphrase="correct horse", traditional=traditional)
    wrong = replace(tls, passphrase=Secret("battery staple"))
    missing = replace(tls, passphrase=None)

    assert inspect(tls).errors == ()
    assert only_error(inspect(wrong)) == (
        "tls.passphrase",
        "is wrong: it does not open the private key",
    )
    assert only_error(inspect(missing)) == (
        "tls.passphrase",
        "is missing: the private key is encrypted",
    )
    for settings in (wrong, missing):
        with pytest.raises(InvalidFiles) as raised:
            build_context(settings)  # must not ask on the terminal either
        assert raised.value.problems == inspect(settings).errors
        assert "battery" not in str(raised.value)


def test_needless_passphrase_is_warned_of(forge: Forge) -> None:
    tls = forge.write(forge.issue())
    tls = replace(tls, passphrase=Secret("unused"))
    assert only_warning(inspect(tls))[0] == "tls.passphrase"
    build_context(tls)


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_key_of_another_certificate_is_told(forge: Forge, kind: str) -> None:
    other = forge.issue(key=forge.rsa_key(2) if kind == "rsa" else None)
    tls = forge.write(forge.issue(key=forge.rsa_key(1)), key=other.key_pem())
    where, message = only_error(inspect(tls))
    assert where == "tls.private_key"
    assert message == f"does not belong to the certificate {tls.certificate}"
    with pytest.raises(InvalidFiles, match="does not belong"):
        build_context(tls)


def test_the_servers_own_certificate_must_come_first(forge: Forge) -> None:
    leaf = forge.issue(forge.middle)
    tls = forge.write(leaf, certificate=forge.middle.pem + leaf.pem)
    where, message = inspect(tls).errors[0].key, inspect(tls).errors[0].message
    assert where == "tls.certificate"
    assert message.endswith("which is number 2 in it")


def test_times_of_validity_are_checked(forge: Forge) -> None:
    start, end = forge.now - 80 * DAY, forge.now + 10 * DAY
    leaf = forge.issue(forge.root, start=start, end=end)
    tls = forge.write(leaf, forge.root)

    fresh = inspect(tls, now=start + DAY)
    assert (fresh.errors, fresh.warnings) == ((), ())
    assert only_warning(inspect(tls))[1].startswith("expires on ")
    assert only_error(inspect(tls, now=end + DAY))[1].startswith("expired on ")
    key, message = only_error(inspect(tls, now=start - DAY / 2))
    assert key == "tls.certificate"
    assert message.startswith("is not valid before ")


def test_an_expired_certificate_can_still_be_served(forge: Forge) -> None:
    # A box whose clock starts in 1970 must come up; clients will say what they think of it.
    tls = forge.write(forge.issue(start=forge.now - 9 * DAY, end=forge.now - DAY))
    assert only_error(inspect(tls))[1].startswith("expired on ")
    build_context(tls)


def test_chain_that_does_not_sign_the_certificate_is_told(forge: Forge) -> None:
    stranger = forge.issue(name="Another root", authority=True)
    tls = forge.write(forge.issue(forge.middle), stranger)
    assert only_error(inspect(tls)) == (
        "tls.ca_chain",
        f"does not sign the certificate {tls.certificate}",
    )


def test_issuer_with_the_wrong_key_is_told(forge: Forge) -> None:
    impostor = forge.issue(forge.root, name="Test intermediate", authority=True)
    tls = forge.write(forge.issue(forge.middle), impostor)
    assert "does not sign" in only_error(inspect(tls))[1]


def test_expired_issuer_is_told(forge: Forge) -> None:
    old = forge.issue(
        forge.root,
        name="Old",
        authority=True,
        start=forge.now - 9 * DAY,
        end=forge.now - DAY,
    )
    assert "CN=Old" in only_error(inspect(forge.write(forge.issue(old), old)))[1]


def test_chain_with_too_much_or_too_little_is_warned_of(forge: Forge) -> None:
    leaf = forge.issue(forge.middle)
    stranger = forge.issue(name="Another root", authority=True)
    key, message = only_warning(inspect(forge.write(leaf, forge.middle, stranger)))
    assert (key, message) == ("tls.ca_chain", "holds 1 certificates that do not belong")
    key, message = only_warning(inspect(forge.write(leaf)))
    assert key == "tls.ca_chain"
    assert "CN=Test intermediate" in message


def test_chain_may_come_in_any_order(forge: Forge) -> None:
    tls = forge.write(forge.issue(forge.middle), forge.root, forge.middle)
    found = inspect(tls)
    assert (found.errors, found.warnings) == ((), ())


@pytest.mark.parametrize(
    ("mode", "advice"), [(0o644, "640"), (0o604, "600"), (0o640, None), (0o400, None)]
)
def test_private_key_that_everybody_can_read_is_warned_of(
    forge: Forge, mode: int, advice: str | None
) -> None:
    tls = forge.write(forge.issue())
    tls.private_key.chmod(mode)
    if advice is None:
        assert inspect(tls).warnings == ()
    else:
        key, message = only_warning(inspect(tls))
        assert key == "tls.private_key"
        assert f"chmod {advice}" in message


def test_certificate_for_no_name_is_warned_of(forge: Forge) -> None:
    found = inspect(forge.write(forge.issue(named=False)))
    assert only_warning(found)[0] == "tls.certificate"


def test_key_too_small_is_refused(forge: Forge) -> None:
    tls = forge.write(forge.issue(key=forge.rsa_key(1, bits=1024)))
    assert only_error(inspect(tls)) == (
        "tls.private_key",
        "is an RSA key of 1024 bits; 2048 are needed",
    )


def test_damaged_files_are_told(forge: Forge) -> None:
    leaf = forge.issue(forge.middle)
    broken = leaf.pem.replace(b"MII", b"AAA", 1)
    assert only_error(inspect(forge.write(leaf, certificate=broken))) == (
        "tls.certificate",
        "is damaged in certificate 1 of 1",
    )
    not_base64 = leaf.pem + b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"
    assert only_error(inspect(forge.write(leaf, certificate=not_base64))) == (
        "tls.certificate",
        "is damaged in certificate 2 of 2",
    )
    broken = leaf.key_pem().replace(b"MIG", b"AAA", 1)
    assert only_error(inspect(forge.write(leaf, key=broken))) == ("tls.private_key", "is damaged")


def test_what_only_openssl_objects_to_is_told_in_its_words(forge: Forge) -> None:
    weak = forge.issue(name="Weak", authority=True, key=forge.rsa_key(1, bits=1024))
    tls = forge.write(forge.issue(weak), weak)
    assert inspect(tls).errors == ()
    with pytest.raises(InvalidFiles, match=r"tls\.certificate: cannot be used: .*KEY_TOO_SMALL"):
        build_context(tls)
