"""Handshakes over loopback with what is served, on asyncio's loop and uvloop."""

from __future__ import annotations

import ssl
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.problems import InvalidFiles
from gateway.tls import build_context
from tests.tls.conftest import Forge
from tests.tls.context.streams import VERSIONS, anyone, close, connect, echo_server, echoes, tls_of


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_client_that_knows_only_the_root_accepts_it(
    forge: Forge, run: Callable[[Awaitable[None]], None], version: Any, kind: str
) -> None:
    leaf = forge.issue(forge.middle, key=forge.rsa_key(1) if kind == "rsa" else None)
    client = forge.client()
    client.minimum_version = client.maximum_version = version
    client.set_alpn_protocols(["h2", "http/1.1"])

    async def main() -> None:
        async with echo_server(build_context(forge.write(leaf, leaf, forge.middle))) as port:
            stream = await connect(port, client)
            assert await echoes(stream)
            tls = tls_of(stream)
            assert tls.selected_alpn_protocol() == "http/1.1"
            assert tls.version() == version.name.replace("_", ".")
            name, _, bits = tls.cipher()
            assert bits >= 128
            assert version is ssl.TLSVersion.TLSv1_3 or name.startswith("ECDHE-")
            await close(stream)

    run(main())


def shake_hands(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> str | None:
    """A handshake without a network; the server's reason against it, if it had one."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            assert side is server
            return error.reason
    return None


@pytest.mark.parametrize(
    ("ciphers", "version", "reason"),
    [
        ("DEFAULT@SECLEVEL=0", "TLSv1_1", "UNSUPPORTED_PROTOCOL"),
        ("AES128-GCM-SHA256", "TLSv1_2", "NO_SHARED_CIPHER"),  # no forward secrecy
        ("ECDHE-RSA-AES128-SHA256", "TLSv1_2", "NO_SHARED_CIPHER"),  # CBC
        ("ECDHE-RSA-AES128-GCM-SHA256", "TLSv1_2", None),
    ],
)
def test_old_protocols_and_ciphers_are_refused(
    forge: Forge, ciphers: str, version: str, reason: str | None
) -> None:
    client = anyone()
    client.set_ciphers(ciphers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that TLS 1.1 is old is the point
        client.minimum_version = ssl.TLSVersion.TLSv1_1
        client.maximum_version = ssl.TLSVersion[version]

    server = build_context(forge.write(forge.issue(key=forge.rsa_key(1))))

    assert shake_hands(server, client) == reason


def test_a_client_that_speaks_only_http2_is_not_lied_to(
    forge: Forge, run: Callable[[Awaitable[None]], None]
) -> None:
    client = anyone()
    client.set_alpn_protocols(["h2"])

    async def main() -> None:
        async with echo_server(build_context(forge.write(forge.issue()))) as port:
            stream = await connect(port, client)
            assert tls_of(stream).selected_alpn_protocol() is None
            await close(stream)

    run(main())


def test_an_encrypted_key_leaves_nothing_behind_in_the_temporary_folder(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = forge.folder / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    build_context(forge.write(forge.issue(forge.middle), forge.middle, passphrase="secret"))
    with pytest.raises(InvalidFiles):
        build_context(forge.write(forge.issue(), key=forge.root.key_pem()))
    assert list(folder.iterdir()) == []


def test_serving_needs_nothing_heavy(forge: Forge) -> None:
    tls = forge.write(forge.issue())
    program = (
        "import sys, gateway.cli.tls\n"
        "from pathlib import Path\n"
        "from gateway.config.settings import TlsSettings\n"
        "from gateway.tls import build_context\n"
        "key, certificate = map(Path, sys.argv[1:])\n"
        "build_context(TlsSettings(private_key=key, certificate=certificate))\n"
        "assert 'cryptography' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, tls.private_key, tls.certificate], check=True, timeout=30
    )
