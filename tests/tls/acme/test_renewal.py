"""When a certificate is got anew, and what becomes of failures."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from gateway.config.settings import Settings
from gateway.http.tls_state import TlsState
from gateway.redirect import build_redirect
from gateway.tasks import cancel_and_wait, spawn
from gateway.tls import CertificateReloader
from gateway.tls.acme import AcmeCertificate
from gateway.tls.acme_schedule import Pace
from tests.harness import eventually
from tests.pebble import Pebble
from tests.tls.acme.gateways import DAY, NAME, needs_pebble, settings_of, store
from tests.tls.conftest import Forge

FAST = Pace(first_retry=0.3, tries_an_hour=1000, after_unusable=0.3)


@contextlib.asynccontextmanager
async def kept(
    settings: Settings, *, pace: Pace = FAST
) -> AsyncIterator[tuple[AcmeCertificate, CertificateReloader]]:
    """The certificate, and the listener of ``redirect_port`` that answers for it."""
    assert settings.tls.acme is not None
    state = TlsState()
    runner = web.AppRunner(build_redirect(settings, state, 443))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", settings.tls.redirect_port).start()
    certificate = await AcmeCertificate.open(
        settings.tls.acme, settings.data_dir / "acme", state.acme_tokens, pace=pace
    )
    reloader = await CertificateReloader.open(await certificate.to_serve())
    keeper = spawn(certificate.keep(reloader), name="keep")
    try:
        yield certificate, reloader
    finally:
        await cancel_and_wait(keeper)
        await runner.cleanup()
        assert state.acme_tokens == {}


def on_disk(settings: Settings) -> x509.Certificate:
    file = settings.data_dir / "acme" / NAME / "certificate.pem"
    return x509.load_pem_x509_certificates(file.read_bytes())[0]


@needs_pebble
async def test_failures_back_off_and_the_old_certificate_stays(
    forge: Forge, pebble: Pebble, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path / "p", pebble)
    old = store(forge, settings, age=64)  # past two thirds of 90 days, whatever the jitter
    pebble.resolve_to("127.0.0.9")  # nobody answers for the name there
    try:
        async with kept(settings) as (certificate, reloader):
            await eventually(lambda: certificate.status.failures >= 2, "two failures")
            assert "127.0.0.9" in (certificate.status.last_error or "")
            assert "refused" in (certificate.status.last_error or "")
            assert on_disk(settings) == old.certificate
            assert reloader.problems == ()
            pebble.resolve_to("127.0.0.1")
            await eventually(lambda: certificate.status.failures == 0, "success at last")
            assert on_disk(settings).issuer != old.certificate.issuer
            assert certificate.status.last_error is None
    finally:
        pebble.resolve_to("127.0.0.1")
    failures = [r for r in caplog.records if r.levelname == "ERROR"]
    assert len(failures) >= 2
    assert all("\n" not in r.getMessage() for r in failures)
    assert f"the one in use ends {old.certificate.not_valid_after_utc:%Y-%m-%d}" in (
        failures[0].getMessage()
    )


@needs_pebble
def failures(certificate: AcmeCertificate) -> int:
    return certificate.status.failures


async def test_tries_are_counted_over_restarts(pebble: Pebble, tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "p", pebble)
    pebble.resolve_to("127.0.0.9")
    try:
        for number in range(4):
            async with kept(settings, pace=Pace()) as (certificate, _):
                await eventually(partial(failures, certificate), f"failure {number}")
    finally:
        pebble.resolve_to("127.0.0.1")
    async with kept(settings, pace=Pace()) as (certificate, _):
        await eventually(lambda: certificate.status.next_try, "a plan")
        assert 3500 < certificate.status.next_try - time.time() <= 3600
        # Nobody may hurry it past the limit either.
        certificate.renew_now()
        await asyncio.sleep(0)
        assert certificate.status.next_try - time.time() > 3500
        # And waiting is waiting.
        used = time.process_time()
        await asyncio.sleep(0.3)  # the time whose CPU is looked at
        assert time.process_time() - used < 0.15
    assert not (settings.data_dir / "acme" / NAME / "certificate.pem").exists()


@needs_pebble
async def test_other_domains_and_another_authority_mean_a_new_certificate(
    forge: Forge, pebble: Pebble, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path / "p", pebble, email="me@example.com")
    store(forge, settings, age=1, directory="https://staging.example.com/dir")
    serials = []
    async with kept(settings) as (certificate, _):
        before = certificate.status.last_success
        await eventually(lambda: certificate.status.last_success != before, "the new authority's")
        serials.append(on_disk(settings).serial_number)
    more = replace(settings.tls.acme, domains=(NAME, "more.example.com"))
    tls = replace(settings.tls, acme=more)
    async with kept(replace(settings, tls=tls)) as (certificate, _):
        before = certificate.status.last_success
        await eventually(lambda: certificate.status.last_success != before, "one for both names")
        serials.append(on_disk(settings).serial_number)
        # The account of the first time is used again.
        assert len(list((settings.data_dir / "acme").glob("account-*.pem"))) == 1
    assert len(set(serials)) == 2


@needs_pebble
async def test_the_authority_says_when_to_renew(pebble: Pebble, tmp_path: Path) -> None:
    """ARI (RFC 9773), which this pebble lacks: its directory is served with one more entry."""
    window: dict[str, datetime] = {}
    asked: list[str] = []

    async def directory(_request: web.Request) -> web.Response:
        found = await asyncio.to_thread(pebble.resources)
        return web.json_response({**found, "renewalInfo": f"{base}/renewal"})

    async def renewal(request: web.Request) -> web.Response:
        asked.append(request.match_info["certificate"])
        times = {key: f"{value:%Y-%m-%dT%H:%M:%SZ}" for key, value in window.items()}
        return web.json_response({"suggestedWindow": times}, headers={"Retry-After": "21600"})

    app = web.Application()
    app.router.add_get("/dir", directory)
    app.router.add_get("/renewal/{certificate}", renewal)
    runner = web.AppRunner(app)
    await runner.setup()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    folder = pebble.ca_file.parent
    tls.load_cert_chain(folder / "localhost-crt.pem", folder / "localhost-key.pem")
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    base = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        now = datetime.now(UTC)
        settings = settings_of(tmp_path / "p", pebble, directory=f"{base}/dir")
        window.update(start=now + 5 * DAY, end=now + 6 * DAY)
        async with kept(settings) as (certificate, _):
            await eventually(lambda: asked and certificate.status.next_try, "a plan")
            assert certificate.status.next_try is not None
            await eventually(
                lambda: 5 <= round((certificate.status.next_try - now.timestamp()) / 86400, 3) <= 6,
                "the authority's time",
            )
            first = on_disk(settings)
        key_id, serial = asked[-1].split(".")
        assert int.from_bytes(base64.urlsafe_b64decode(serial + "==")) == first.serial_number
        authority = first.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert base64.urlsafe_b64decode(key_id + "==") == authority.key_identifier

        # It is going to be revoked: renew at once, long before two thirds.
        window.update(start=now - 2 * DAY, end=now - 1 * DAY)
        async with kept(settings) as (certificate, _):
            before = certificate.status.last_success
            await eventually(lambda: certificate.status.last_success != before, "another one")
            assert on_disk(settings).serial_number != first.serial_number
            window.update(start=now + 5 * DAY, end=now + 6 * DAY)
    finally:
        await runner.cleanup()
