"""The context and its reloader in real handshakes over loopback, on asyncio's loop and uvloop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from gateway.problems import InvalidFiles
from gateway.secret import Secret
from gateway.tasks import cancel_and_wait, spawn
from gateway.tls import CertificateReloader, build_context

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    """Runs a coroutine on one loop and the other."""

    def runner(main: Awaitable[None]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(asyncio.wait_for(main, 30))

    return runner


@asynccontextmanager
async def echo_server(context: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of a TLS server that sends every line back."""
    writers: set[asyncio.StreamWriter] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


def anyone(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that looks at the certificate itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
    return context


async def connect(
    port: int, context: ssl.SSLContext | None = None, name: str = "localhost"
) -> Stream:
    return await asyncio.open_connection(
        "127.0.0.1", port, ssl=context or anyone(), server_hostname=name
    )


def tls_of(stream: Stream) -> ssl.SSLObject:
    return stream[1].get_extra_info("ssl_object")


async def echoes(stream: Stream) -> bool:
    stream[1].write(b"still there?\n")
    return await stream[0].readline() == b"still there?\n"


async def close(*streams: Stream) -> None:
    for _, writer in streams:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in streams), return_exceptions=True)


async def presented(port: int, context: ssl.SSLContext | None = None, name: str = "localhost"):
    """The certificate that a new connection is shown (DER)."""
    stream = await connect(port, context, name)
    assert await echoes(stream)
    der = tls_of(stream).getpeercert(binary_form=True)
    await close(stream)
    return der


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_client_that_knows_only_the_root_accepts_it(forge, run, version, kind) -> None:
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
    forge, ciphers: str, version: str, reason: str | None
) -> None:
    client = anyone()
    client.set_ciphers(ciphers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that TLS 1.1 is old is the point
        client.minimum_version = ssl.TLSVersion.TLSv1_1
        client.maximum_version = ssl.TLSVersion[version]

    server = build_context(forge.write(forge.issue(key=forge.rsa_key(1))))

    assert shake_hands(server, client) == reason


def test_a_client_that_speaks_only_http2_is_not_lied_to(forge, run) -> None:
    client = anyone()
    client.set_alpn_protocols(["h2"])

    async def main() -> None:
        async with echo_server(build_context(forge.write(forge.issue()))) as port:
            stream = await connect(port, client)
            assert tls_of(stream).selected_alpn_protocol() is None
            await close(stream)

    run(main())


def test_an_encrypted_key_leaves_nothing_behind_in_the_temporary_folder(
    forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = forge.folder / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    build_context(forge.write(forge.issue(forge.middle), forge.middle, passphrase="secret"))
    with pytest.raises(InvalidFiles):
        build_context(forge.write(forge.issue(), key=forge.root.key_pem()))
    assert list(folder.iterdir()) == []


def test_serving_needs_nothing_heavy(forge) -> None:
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


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("before", "after"), [("ec", "ec"), ("rsa", "ec"), ("ec", "rsa")])
def test_a_new_certificate_under_fifty_open_streams(forge, run, version, before, after) -> None:
    keys = {"rsa": forge.rsa_key(1), "ec": None}
    old = forge.issue(forge.middle, key=keys[before])
    new = forge.issue(forge.middle, key=keys[after])
    client = anyone(version)

    async def main() -> None:
        reloader = await CertificateReloader.open(forge.write(old, forge.middle))
        async with echo_server(reloader.context) as port:
            streams = await asyncio.gather(*(connect(port, client) for _ in range(50)))
            # Accepted before the change, greeting after it.
            slow = socket.create_connection(("127.0.0.1", port))
            assert tls_of(streams[0]).getpeercert(binary_form=True) == old.der

            forge.write(new, forge.middle)
            await reloader.reload()

            assert await presented(port, client) == new.der
            assert await presented(port, client, name="") == new.der  # without a server name
            late = await asyncio.open_connection(sock=slow, ssl=client, server_hostname="localhost")
            assert await echoes(late)
            assert tls_of(late).getpeercert(binary_form=True) == new.der
            assert all(await asyncio.gather(*(echoes(stream) for stream in streams)))
            await close(late, *streams)

    run(main())


def test_the_new_chain_and_alpn_come_with_the_new_certificate(forge, run) -> None:
    other = forge.issue(forge.root, name="Next intermediate", authority=True)
    client = forge.client()
    client.set_alpn_protocols(["http/1.1"])

    async def main() -> None:
        tls = forge.write(forge.issue(forge.middle), forge.middle)
        reloader = await CertificateReloader.open(tls)
        async with echo_server(reloader.context) as port:
            for _ in range(3):  # more than one swap
                new = forge.issue(other)
                forge.write(new, other)
                await reloader.reload()
                stream = await connect(port, client)
                assert tls_of(stream).getpeercert(binary_form=True) == new.der
                assert tls_of(stream).selected_alpn_protocol() == "http/1.1"
                await close(stream)

    run(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_are_resumed_before_and_after_a_new_certificate(forge, run, version) -> None:
    client = anyone(version)

    def visit(port: int, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            client.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(b"hello\n")
            assert tls.recv(6) == b"hello\n"  # TLS 1.3 sends the ticket after the handshake
            return tls.session, bool(tls.session_reused)

    async def main() -> None:
        tls = forge.write(forge.issue())
        reloader = await CertificateReloader.open(tls)
        async with echo_server(reloader.context) as port:
            session, reused = await asyncio.to_thread(visit, port, None)
            assert not reused
            session, reused = await asyncio.to_thread(visit, port, session)
            assert reused
            forge.write(forge.issue())
            await reloader.reload()
            session, reused = await asyncio.to_thread(visit, port, session)
            assert reused
            # And what is handed out by the new certificate's context works too.
            session, _ = await asyncio.to_thread(visit, port, None)
            _, reused = await asyncio.to_thread(visit, port, session)
            assert reused

    run(main())


def test_a_broken_new_file_keeps_the_old_certificate(forge, run) -> None:
    old = forge.issue(forge.root)

    async def main() -> None:
        tls = forge.write(old, forge.root)
        reloader = await CertificateReloader.open(tls)
        async with echo_server(reloader.context) as port:
            tls.private_key.write_bytes(forge.issue().key_pem())
            with pytest.raises(InvalidFiles, match="does not belong"):
                await reloader.reload()
            assert [problem.key for problem in reloader.problems] == ["tls.private_key"]
            assert await presented(port) == old.der

            expired = forge.issue(forge.root, end=forge.now)
            forge.write(expired, forge.root)
            with pytest.raises(InvalidFiles, match="expired"):
                await reloader.reload()
            assert await presented(port) == old.der

            new = forge.issue(forge.root)
            forge.write(new, forge.root)
            await reloader.reload()
            assert reloader.problems == ()
            assert await presented(port) == new.der

    run(main())


def test_other_files_by_new_settings(forge, run) -> None:
    old, new = forge.issue(), forge.issue()

    async def main() -> None:
        tls = forge.write(old)
        reloader = await CertificateReloader.open(tls)
        moved = {
            key: getattr(tls, key).with_name(f"new-{key}.pem")
            for key in ("private_key", "certificate")
        }
        moved["private_key"].write_bytes(new.key_pem(passphrase="other"))
        moved["certificate"].write_bytes(new.pem)
        other = replace(tls, **moved, passphrase=Secret("other"))
        async with echo_server(reloader.context) as port:
            await reloader.reload(other)
            assert await presented(port) == new.der
            assert not await reloader.check()

    run(main())


async def test_check_takes_files_that_have_stopped_changing(
    forge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old, new = forge.issue(), forge.issue()
    tls = forge.write(old)
    reloader = await CertificateReloader.open(tls)
    async with echo_server(reloader.context) as port:
        assert not await reloader.check()

        # A tool in the middle of its work: the key is new, the certificate still the old one.
        tls.private_key.write_bytes(new.key_pem())
        assert not await reloader.check()
        tls.certificate.write_bytes(new.pem)
        assert not await reloader.check()
        assert caplog.messages == []
        assert await presented(port) == old.der

        assert await reloader.check()
        assert await presented(port) == new.der
        assert not await reloader.check()
        assert [r.levelname for r in caplog.records] == ["INFO"]


async def test_check_reports_broken_files_once_and_looks_again_when_they_change(
    forge, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = forge.issue(), forge.issue()
    tls = forge.write(old)
    reloader = await CertificateReloader.open(tls)
    async with echo_server(reloader.context) as port:
        tls.certificate.unlink()
        assert [await reloader.check() for _ in range(5)] == [False] * 5
        (record,) = caplog.records
        assert record.levelname == "ERROR"
        assert "No such file" in record.getMessage()
        assert [problem.key for problem in reloader.problems] == ["tls.certificate"]
        assert await presented(port) == old.der

        forge.write(new)
        assert [await reloader.check() for _ in range(3)] == [False, True, False]
        assert reloader.problems == ()
        assert await presented(port) == new.der


async def test_a_link_that_points_elsewhere_is_a_change(forge) -> None:
    """As certbot does it: live/ links into archive/, and both files are of one size."""
    old, new = forge.issue(), forge.issue()
    tls = forge.write(old)
    for path, data in ((tls.private_key, new.key_pem()), (tls.certificate, new.pem)):
        path.rename(path.with_suffix(".1"))
        path.with_suffix(".2").write_bytes(data)
        path.symlink_to(path.with_suffix(".1"))
        stat = path.stat()
        os.utime(path.with_suffix(".2"), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    reloader = await CertificateReloader.open(tls)
    for path in (tls.private_key, tls.certificate):
        path.unlink()
        path.symlink_to(path.with_suffix(".2"))

    assert [await reloader.check() for _ in range(2)] == [False, True]


async def test_watch_sees_a_change_by_itself(forge) -> None:
    old, new = forge.issue(), forge.issue()
    reloader = await CertificateReloader.open(forge.write(old))
    async with echo_server(reloader.context) as port:
        watcher = spawn(reloader.watch(0.01), name="certificate watch")
        forge.write(new)
        async with asyncio.timeout(10):
            while await presented(port) != new.der:
                pass  # each look is a connection of its own
        await cancel_and_wait(watcher)


async def test_opening_broken_files_says_what_is_wrong(forge) -> None:
    tls = forge.write(forge.issue(), key=forge.root.key_pem())
    with pytest.raises(InvalidFiles, match=r"/etc/x\.yaml: tls\.private_key: does not belong"):
        await CertificateReloader.open(tls, file="/etc/x.yaml")


async def test_half_of_a_new_pair_is_never_served_and_no_alarm(
    forge, caplog: pytest.LogCaptureFixture
) -> None:
    """A tool that takes seconds between the key and the certificate, and then the chain."""
    caplog.set_level(logging.INFO)
    old, new = forge.issue(forge.middle), forge.issue(forge.root)
    tls = forge.write(old, forge.middle)
    reloader = await CertificateReloader.open(tls)
    async with echo_server(reloader.context) as port:
        for path, data in ((tls.private_key, new.key_pem()), (tls.certificate, new.pem)):
            path.write_bytes(data)
            assert [await reloader.check() for _ in range(3)] == [False] * 3
            assert reloader.problems
            assert await presented(port) == old.der
        assert caplog.messages == []
        tls.ca_chain.write_bytes(forge.root.pem)
        assert [await reloader.check() for _ in range(3)] == [False, True, False]
        assert await presented(port) == new.der
        assert caplog.messages == [f"new certificate in use: {tls.certificate}"]


async def test_files_that_change_while_they_are_read_are_read_again(
    forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the certificate and the chain somebody writes both."""
    other = forge.issue(forge.root, name="Next intermediate", authority=True)
    new, newer = forge.issue(forge.middle), forge.issue(other)
    tls = forge.write(forge.issue(forge.middle), forge.middle)
    reloader = await CertificateReloader.open(tls)
    forge.write(new, forge.middle)
    read_bytes, times = Path.read_bytes, []

    def while_it_is_read(path: Path) -> bytes:
        data = read_bytes(path)
        if path == tls.certificate and not times:
            times.append(path)
            forge.write(newer, other)
        return data

    monkeypatch.setattr(Path, "read_bytes", while_it_is_read)
    await reloader.reload()
    client = forge.client()
    async with echo_server(reloader.context) as port:
        assert await presented(port, client) == newer.der  # and the chain is that of the new one
