"""Certificates from a real ACME server on loopback: the first, the next, and none."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import ClientSession, web
from cryptography import x509

from gateway.config.load import load_settings
from gateway.config.settings import AcmeSettings, Settings, TlsSettings
from gateway.http.tls_state import TlsState
from gateway.library import Library
from gateway.problems import InvalidFiles
from gateway.redirect import build_redirect
from gateway.server import Gateway
from gateway.tasks import cancel_and_wait, spawn
from gateway.tls import CertificateReloader
from gateway.tls.acme import AcmeCertificate
from gateway.tls.acme_schedule import Pace
from tests.harness import FAKE, Served, fake_model, opened, project
from tests.pebble import MISSING, Pebble

NAME = "box.example.com"
DOMAINS = [NAME, "127.0.0.1"]
DAY = timedelta(days=1)
needs_pebble = pytest.mark.skipif(
    MISSING is not None, reason=f"{MISSING} is not installed (Debian, Ubuntu: apt install pebble)"
)


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    server = Pebble(tmp_path_factory.mktemp("pebble"))
    yield server
    server.stop()


def acme_of(pebble: Pebble, **changed: Any) -> dict[str, Any]:
    acme = {
        "domains": DOMAINS,
        "directory": pebble.directory,
        "agree_tos": True,
        "ca_file": str(pebble.ca_file),
    }
    return {**acme, **changed}


def settings_of(root: Path, pebble: Pebble, models: Any = None, **acme: Any) -> Settings:
    """A project that listens where pebble looks for proofs."""
    config = project(
        root,
        models or {},
        port=pebble.tls_port,
        llama_server=str(FAKE),
        tls={
            "enabled": True,
            "redirect_port": pebble.http_port,
            "acme": acme_of(pebble, **acme),
        },
    )
    return load_settings(config, environ={}).settings


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Gateway]:
    async with Gateway(settings, Library.open(settings.models_file)) as gateway:
        yield gateway


async def until(condition: Callable[[], Any], what: str, seconds: float = 20) -> None:
    """Wait for what the certificate's own task does."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within {seconds} s: {what}")


async def presented(port: int, *, trust: str | None = None) -> x509.Certificate:
    """What a client of :data:`NAME` is shown; with ``trust`` (PEM) it verifies it."""
    context = (
        ssl.create_default_context(cadata=trust) if trust else ssl._create_unverified_context()
    )
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAME)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der)


def store(forge: Any, settings: Settings, *, age: float, directory: str | None = None) -> Any:
    """Put a certificate of 90 days into the data folder that is ``age`` days old."""
    start = datetime.now(UTC) - age * DAY
    ca = forge.issue(name="Old CA", authority=True, start=start, end=start + 90 * DAY)
    pair = forge.issue(ca, name=NAME, start=start, end=start + 90 * DAY)
    folder = settings.data_dir / "acme" / NAME
    folder.mkdir(parents=True)
    assert settings.tls.acme is not None
    line = f"Key and certificate, by ACME from {directory or settings.tls.acme.directory}\n"
    pem = line.encode() + pair.key_pem() + pair.pem + ca.pem
    (folder / "certificate.pem").write_bytes(pem)
    (folder / "certificate.pem").chmod(0o600)
    return pair


# --- with a whole gateway ------------------------------------------------------------------


@needs_pebble
@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
async def test_the_first_certificate_comes_by_itself(
    pebble: Pebble, tmp_path: Path, challenge: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    domains = [NAME, "second.example.com", "127.0.0.1"]
    settings = settings_of(tmp_path / "p", pebble, challenge=challenge, domains=domains)
    async with running(settings) as gateway, ClientSession() as session:
        # Before it has come, something is served already.
        temporary = await presented(pebble.tls_port)
        assert temporary.issuer == temporary.subject
        async with session.get(f"{gateway.urls[0]}/health", ssl=False) as answer:
            assert answer.status == 200
            assert "Strict-Transport-Security" not in answer.headers

        assert gateway.acme is not None
        await until(lambda: gateway.acme.status.last_success, "a certificate")

        trust = ssl.create_default_context(cadata=pebble.root())
        async with session.get(f"{gateway.urls[0]}/health", ssl=trust) as answer:
            assert answer.status == 200
            assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        certificate = await presented(pebble.tls_port, trust=pebble.root())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert sorted(str(name.value) for name in names) == sorted(domains)
        end, start = certificate.not_valid_after_utc, certificate.not_valid_before_utc
        await until(lambda: gateway.acme.status.next_try, "the next time")
        assert (
            0.66
            < (gateway.acme.status.next_try - start.timestamp()) / ((end - start).total_seconds())
            < 0.71
        )
        # Nothing is left of the proof.
        proof = f"http://127.0.0.1:{pebble.http_port}/.well-known/acme-challenge/x"
        async with session.get(proof) as answer:
            assert answer.status == 404
    folder = settings.data_dir / "acme"
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    assert [file.name for file in files] == [
        f"account-{pebble.directory.split('/')[2].replace(':', '_')}.pem",
        "certificate.pem",
    ]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    log = "\n".join(caplog.messages)
    assert f"new certificate for {', '.join(domains)}" in log
    assert "PRIVATE KEY" not in log


@needs_pebble
@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
async def test_renewal_under_open_streams(
    forge, pebble: Pebble, tmp_path: Path, challenge: str
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    # They flow while the certificate changes, and none ends before.
    scripted = fake_model(tmp_path, chunks=100, pause=0.03, gate=gate, gate_at=99)
    model = {**scripted, "parallel": 20}
    settings = settings_of(tmp_path / "p", pebble, {"m": model}, challenge=challenge)
    old = store(forge, settings, age=10)
    seen: list[int] = []

    async with running(settings) as gateway:
        assert gateway.acme is not None
        await gateway.open_keys()
        assert gateway.ring is not None
        _, key = await gateway.ring.create("test", "", admin=True)
        async with openai.AsyncOpenAI(
            base_url=f"{gateway.urls[0]}/v1",
            api_key=key,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(verify=False),
        ) as client:

            async def read(index: int) -> str | None:
                stream = await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "x"}], stream=True
                )
                finish = None
                async for part in stream:
                    seen[index] += 1
                    finish = part.choices[0].finish_reason or finish
                return finish

            seen.extend([0] * 10)
            readers = [spawn(read(index), name=f"reader {index}") for index in range(10)]
            await until(lambda: all(seen), "every stream has begun")
            assert (await presented(pebble.tls_port)).serial_number == (
                old.certificate.serial_number
            )
            before = gateway.acme.status.last_success
            gateway.acme.renew_now()
            await until(lambda: gateway.acme.status.last_success != before, "a new certificate")
            new = await presented(pebble.tls_port, trust=pebble.root())
            assert new.serial_number != old.certificate.serial_number
            assert not any(reader.done() for reader in readers)
            with opened(gate):
                assert await asyncio.gather(*readers) == ["stop"] * 10
    assert seen == [101] * 10


async def test_a_certificate_that_is_there_is_used_without_asking_anybody(
    forge, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    config = project(
        tmp_path / "p",
        {},
        port=0,
        tls={
            "enabled": True,
            "acme": {
                "domains": DOMAINS,
                "agree_tos": True,
                "directory": f"https://127.0.0.1:{port}/dir",
            },
        },
    )
    caplog.set_level(logging.INFO)
    settings = load_settings(config, environ={}).settings
    pair = store(forge, settings, age=10)
    async with running(settings) as gateway:
        served = await presented(int(gateway.urls[0].rpartition(":")[2]))
        assert served.serial_number == pair.certificate.serial_number
        # Asked when it wants a renewal (ARI), the authority is silent: two thirds it is.
        await until(lambda: gateway.acme.status.next_try, "a plan")
        days = (gateway.acme.status.next_try - time.time()) / 86400
        assert 49.9 < days < 53.1
        assert gateway.acme.status.failures == 0
    assert "cannot ask when to renew" in "\n".join(caplog.messages)


def test_a_silent_authority_holds_up_neither_start_nor_end(
    tmp_path: Path, serve: Callable[..., Served]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as authority:
        authority.settimeout(20)
        directory = f"https://127.0.0.1:{authority.getsockname()[1]}/dir"
        acme = {"domains": [NAME], "agree_tos": True, "directory": directory}
        config = project(tmp_path / "p", {}, tls={"enabled": True, "acme": acme})
        served = serve("--config", str(config))
        assert served.url.startswith("https://")
        connection, _ = authority.accept()
        with connection:  # which never says a word
            started = time.monotonic()
            assert served.stop(signal.SIGTERM, 25) == 0
            assert time.monotonic() - started < 15  # a request may take 30 s
    assert "Traceback" not in "".join(served.log)


# --- the certificate alone, with a pace for tests ------------------------------------------

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
    forge, pebble: Pebble, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path / "p", pebble)
    old = store(forge, settings, age=64)  # past two thirds of 90 days, whatever the jitter
    pebble.resolve_to("127.0.0.9")  # nobody answers for the name there
    try:
        async with kept(settings) as (certificate, reloader):
            await until(lambda: certificate.status.failures >= 2, "two failures")
            assert "127.0.0.9" in (certificate.status.last_error or "")
            assert "refused" in (certificate.status.last_error or "")
            assert on_disk(settings) == old.certificate
            assert reloader.problems == ()
            pebble.resolve_to("127.0.0.1")
            await until(lambda: certificate.status.failures == 0, "success at last")
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
async def test_tries_are_counted_over_restarts(pebble: Pebble, tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "p", pebble)
    pebble.resolve_to("127.0.0.9")
    try:
        for number in range(4):
            async with kept(settings, pace=Pace()) as (certificate, _):
                await until(lambda it=certificate: it.status.failures, f"failure {number}")
    finally:
        pebble.resolve_to("127.0.0.1")
    async with kept(settings, pace=Pace()) as (certificate, _):
        await until(lambda: certificate.status.next_try, "a plan")
        assert 3500 < certificate.status.next_try - time.time() <= 3600
        # Nobody may hurry it past the limit either.
        certificate.renew_now()
        await asyncio.sleep(0)
        assert certificate.status.next_try - time.time() > 3500
        # And waiting is waiting.
        used = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - used < 0.15
    assert not (settings.data_dir / "acme" / NAME / "certificate.pem").exists()


@needs_pebble
async def test_other_domains_and_another_authority_mean_a_new_certificate(
    forge, pebble: Pebble, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path / "p", pebble, email="me@example.com")
    store(forge, settings, age=1, directory="https://staging.example.com/dir")
    serials = []
    async with kept(settings) as (certificate, _):
        before = certificate.status.last_success
        await until(lambda: certificate.status.last_success != before, "the new authority's")
        serials.append(on_disk(settings).serial_number)
    more = replace(settings.tls.acme, domains=(NAME, "more.example.com"))
    tls = replace(settings.tls, acme=more)
    async with kept(replace(settings, tls=tls)) as (certificate, _):
        before = certificate.status.last_success
        await until(lambda: certificate.status.last_success != before, "one for both names")
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
            await until(lambda: asked and certificate.status.next_try, "a plan")
            assert certificate.status.next_try is not None
            await until(
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
            await until(lambda: certificate.status.last_success != before, "another one")
            assert on_disk(settings).serial_number != first.serial_number
            window.update(start=now + 5 * DAY, end=now + 6 * DAY)
    finally:
        await runner.cleanup()


# --- what is wrong before anybody is asked -------------------------------------------------


async def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "josepy", None)
    tls = TlsSettings(enabled=True, acme=AcmeSettings(domains=(NAME,), agree_tos=True))
    assert tls.acme is not None
    with pytest.raises(InvalidFiles, match=r"josepy: pip install josepy$"):
        await AcmeCertificate.open(tls.acme, tmp_path, {})


def test_a_gateway_without_acme_never_imports_it() -> None:
    import subprocess
    import sys

    program = (
        "import sys, gateway.tls.acme, gateway.http.listeners\n"
        "heavy = {'acme', 'josepy', 'requests', 'cryptography', 'OpenSSL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@pytest.mark.parametrize(
    ("changed", "key", "said"),
    [
        ({"agree_tos": False}, "tls.acme.agree_tos", "must be true"),
        ({"agree_tos": None}, "tls.acme.agree_tos", "I have read"),
        ({"domains": []}, "tls.acme.domains", "at least one"),
        ({"domains": ["*.example.com"]}, "tls.acme.domains", "wildcards need dns-01"),
        ({"domains": ["https://example.com"]}, "tls.acme.domains", "without scheme"),
        ({"challenge": "dns-01"}, "tls.acme.challenge", "tls-alpn-01"),
        ({"directory": "http://ca.example.com/dir"}, "tls.acme.directory", "https URL"),
        ({"email": "a@x.de,b@x.de"}, "tls.acme.email", "one e-mail address"),
        ({"mail": "a@x.de"}, "tls.acme.mail", "allowed: agree_tos, ca_file"),
    ],
)
def test_check_says_what_is_wrong_with_the_settings(
    tmp_path: Path, changed: dict[str, Any], key: str, said: str
) -> None:
    acme = {"domains": [NAME], "agree_tos": True, **changed}
    with pytest.raises(InvalidFiles) as caught:
        load_settings(project(tmp_path / "p", {}, tls={"acme": acme}), environ={})
    (problem,) = [p for p in caught.value.problems if p.key == key]
    assert said in str(problem)


def test_two_sources_of_one_certificate(tmp_path: Path) -> None:
    tls = {"certificate": "ssl/x.pem", "acme": {"domains": [NAME], "agree_tos": True}}
    with pytest.raises(InvalidFiles, match=r"tls\.acme: .*remove certificate, or acme"):
        load_settings(project(tmp_path / "p", {}, tls=tls), environ={})


def test_the_check_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gateway.cli import main

    acme = {"domains": [NAME], "agree_tos": True, "ca_file": "ssl/none.pem"}
    config = project(
        tmp_path / "p", {}, llama_server=str(FAKE), tls={"enabled": True, "acme": acme}
    )
    assert main(["check", "--config", str(config)]) == 1
    printed = capsys.readouterr()
    assert "tls.acme.ca_file: is not a file" in printed.out
    assert "tls.redirect_port: is not set, and http-01 comes to port 80" in printed.err
    del acme["ca_file"]
    config.write_text(
        json.dumps(
            {
                "llama_server": str(FAKE),
                "tls": {"enabled": True, "redirect_port": 8081, "acme": acme},
            }
        )
    )
    assert main(["check", "--config", str(config)]) == 0
    assert capsys.readouterr().err == ""
