"""A gateway whose certificates come from a real ACME server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import openai
import pytest
from aiohttp import ClientSession
from cryptography import x509

from gateway.config.load import load_settings
from gateway.config.settings import Settings
from gateway.library import Library
from gateway.server import Gateway
from gateway.tasks import spawn
from tests.harness import Served, eventually, fake_model, opened, project
from tests.pebble import Pebble
from tests.tls.acme.gateways import DOMAINS, NAME, needs_pebble, settings_of, store
from tests.tls.conftest import Forge


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Gateway]:
    async with Gateway(settings, Library.open(settings.models_file)) as gateway:
        yield gateway


async def presented(port: int, *, trust: str | None = None) -> x509.Certificate:
    """What a client of :data:`NAME` is shown; with ``trust`` (PEM) it verifies it."""
    context = ssl.create_default_context(cadata=trust)
    if trust is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAME)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der)


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
        await eventually(lambda: gateway.acme.status.last_success, "a certificate")

        trust = ssl.create_default_context(cadata=pebble.root())
        async with session.get(f"{gateway.urls[0]}/health", ssl=trust) as answer:
            assert answer.status == 200
            assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        certificate = await presented(pebble.tls_port, trust=pebble.root())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert sorted(str(name.value) for name in names) == sorted(domains)
        end, start = certificate.not_valid_after_utc, certificate.not_valid_before_utc
        await eventually(lambda: gateway.acme.status.next_try, "the next time")
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
async def test_renewal_breaks_no_open_stream(
    forge: Forge, pebble: Pebble, tmp_path: Path, challenge: str
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
            await eventually(lambda: all(seen), "every stream has begun")
            assert (await presented(pebble.tls_port)).serial_number == (
                old.certificate.serial_number
            )
            before = gateway.acme.status.last_success
            gateway.acme.renew_now()
            await eventually(
                lambda: gateway.acme.status.last_success != before, "a new certificate"
            )
            new = await presented(pebble.tls_port, trust=pebble.root())
            assert new.serial_number != old.certificate.serial_number
            assert not any(reader.done() for reader in readers)
            with opened(gate):
                assert await asyncio.gather(*readers) == ["stop"] * 10
    assert seen == [101] * 10


async def test_a_certificate_that_is_there_is_used_without_asking_anybody(
    forge: Forge, tmp_path: Path, caplog: pytest.LogCaptureFixture
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
        await eventually(lambda: gateway.acme.status.next_try, "a plan")
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
