"""Files of certificates that change, break, or are half written."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.problems import InvalidFiles
from gateway.secret import Secret
from gateway.tasks import cancel_and_wait, spawn
from gateway.tls import CertificateReloader
from tests.tls.conftest import Forge
from tests.tls.context.streams import echo_server, presented


def test_a_broken_new_file_keeps_the_old_certificate(
    forge: Forge, run: Callable[[Awaitable[None]], None]
) -> None:
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


def test_other_files_are_used_after_new_settings(
    forge: Forge, run: Callable[[Awaitable[None]], None]
) -> None:
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
    forge: Forge, caplog: pytest.LogCaptureFixture
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
    forge: Forge, caplog: pytest.LogCaptureFixture
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


async def test_a_link_that_points_elsewhere_is_a_change(forge: Forge) -> None:
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


async def test_watch_sees_a_change_by_itself(forge: Forge) -> None:
    old, new = forge.issue(), forge.issue()
    reloader = await CertificateReloader.open(forge.write(old))
    async with echo_server(reloader.context) as port:
        watcher = spawn(reloader.watch(0.01), name="certificate watch")
        forge.write(new)
        async with asyncio.timeout(10):
            while await presented(port) != new.der:
                pass  # each look is a connection of its own
        await cancel_and_wait(watcher)


async def test_opening_broken_files_says_what_is_wrong(forge: Forge) -> None:
    tls = forge.write(forge.issue(), key=forge.root.key_pem())
    with pytest.raises(InvalidFiles, match=r"/etc/x\.yaml: tls\.private_key: does not belong"):
        await CertificateReloader.open(tls, file="/etc/x.yaml")


async def test_half_of_a_new_pair_is_never_served_and_no_alarm(
    forge: Forge, caplog: pytest.LogCaptureFixture
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
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the certificate and the chain somebody writes both."""
    other = forge.issue(forge.root, name="Next intermediate", authority=True)
    new, newer = forge.issue(forge.middle), forge.issue(other)
    tls = forge.write(forge.issue(forge.middle), forge.middle)
    reloader = await CertificateReloader.open(tls)
    forge.write(new, forge.middle)
    read_bytes = Path.read_bytes
    times: list[Any] = []

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
