"""`llm-gateway serve` over TLS: as its own process, seen by clients on the wire."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.tls import SelfSigned, self_signed
from tests.harness import FAKE, MakeGateway, Served, fake_model, opened, project, wait_until

Serve = Callable[..., Served]
CHUNKS = 80
STREAMS = 50


def tls_project(root: Path, models: dict[str, Any], made: SelfSigned, **tls: Any) -> Path:
    files = {
        "private_key": str(made.private_key),
        "certificate": str(made.certificate),
        "ca_chain": str(made.chain),
    }
    tls = {"enabled": True, **files, **tls}
    return project(root, models, llama_server=str(FAKE), tls=tls)


def trusting(made: SelfSigned) -> ssl.SSLContext:
    """What a client has after `export SSL_CERT_FILE=...-chain.pem`."""
    return ssl.create_default_context(cafile=str(made.chain))


def port_of(served: Served) -> int:
    return int(served.url.rpartition(":")[2])


def presented(served: Served, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port_of(served)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
        assert der is not None
        return der


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, SelfSigned]]:
    """A gateway with a scripted model, a redirect, and the certificate it serves."""
    root = tmp_path_factory.mktemp("secure")
    made = self_signed(["localhost", "127.0.0.1"], root / "ssl")
    config = tls_project(root / "p", {"m": fake_model(root)}, made, redirect_port=0)
    served = Served(root, "--config", str(config))
    yield served, made
    assert served.stop() == 0
    assert "Traceback" not in "".join(served.log)


def test_openai_client_trusts_the_local_authority(secure: tuple[Served, SelfSigned]) -> None:
    served, made = secure
    assert served.url.startswith("https://127.0.0.1:")
    with served.client(http_client=openai.DefaultHttpxClient(verify=trusting(made))) as client:
        question: Any = [{"role": "user", "content": "hi"}]
        answer = client.chat.completions.create(model="m", messages=question)
        assert answer.choices[0].message.content
        stream = client.chat.completions.create(model="m", messages=question, stream=True)
        assert [part.choices[0].finish_reason for part in stream][-1] == "stop"
        raw = client.models.with_raw_response.list()
        # A home-made certificate is no reason to refuse everything else for a year.
        assert "strict-transport-security" not in raw.headers
    with served.client() as stranger, pytest.raises(openai.APIConnectionError):
        stranger.models.list()

    plain = served.wait_for(r"(http://\S+) leads to https", served.log)
    with openai.DefaultHttpxClient(verify=trusting(made), follow_redirects=True) as browser:
        found = browser.get(f"{plain}/ping")
        assert (found.status_code, found.text) == (200, "pong")
        assert str(found.url) == f"{served.url}/ping"
        assert [step.status_code for step in found.history] == [308]


def test_plain_http_to_the_tls_port_gets_one_answer(secure: tuple[Served, SelfSigned]) -> None:
    served, made = secure
    with socket.create_connection(("127.0.0.1", port_of(served)), timeout=10) as plain:
        plain.sendall(b"GET /models HTTP/1.1\r\nHost: x\r\n\r\n")
        got = b""
        while data := plain.recv(4096):
            got += data
        assert got.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"https://" in got
    with openai.DefaultHttpxClient(verify=trusting(made)) as client:
        assert client.get(f"{served.url}/ping").text == "pong"


def test_tls_1_2_and_1_3_are_spoken(secure: tuple[Served, SelfSigned]) -> None:
    served, made = secure

    def hello(version: str) -> tuple[str | None, str | None]:
        """The version and the protocol that a client of just this version gets."""
        client = trusting(made)
        client.set_ciphers("DEFAULT@SECLEVEL=0")  # or the client would refuse the old ones itself
        client.set_alpn_protocols(["h2", "http/1.1"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            client.minimum_version = client.maximum_version = ssl.TLSVersion[version]
        with (
            socket.create_connection(("127.0.0.1", port_of(served)), timeout=10) as plain,
            client.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            return tls.version(), tls.selected_alpn_protocol()

    assert hello("TLSv1_2") == ("TLSv1.2", "http/1.1")
    assert hello("TLSv1_3") == ("TLSv1.3", "http/1.1")
    for old in ("TLSv1", "TLSv1_1"):
        # asyncio hangs up before OpenSSL's alert is on its way.
        with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|UNEXPECTED_EOF"):
            hello(old)


@pytest.mark.parametrize("tool", ["writes", "links"])
def test_new_files_are_in_use_within_three_seconds(serve: Serve, tmp_path: Path, tool: str) -> None:
    """Written over as win-acme does, or linked to others as certbot does: four links in turn."""
    old = self_signed(["localhost"], tmp_path / "old")
    new = self_signed(["localhost"], tmp_path / "new")
    live = [tmp_path / f"live-{part}.pem" for part in ("key", "crt", "chain")]

    def put(made: SelfSigned) -> None:
        for file, source in zip(
            live, (made.private_key, made.certificate, made.chain), strict=True
        ):
            if tool == "links":
                file.unlink(missing_ok=True)
                file.symlink_to(source)
            else:
                file.write_bytes(source.read_bytes())

    put(old)
    made = replace(old, private_key=live[0], certificate=live[1], chain=live[2])
    config = tls_project(tmp_path / "p", {"m": fake_model(tmp_path)}, made)
    served = serve("--config", str(config))
    before = presented(served, trusting(old))
    put(new)
    written = time.monotonic()
    trust = trusting(new)

    def taken() -> bool:
        try:
            return presented(served, trust) != before
        except ssl.SSLCertVerificationError:
            return False

    wait_until(taken, 3, "the new certificate")
    assert time.monotonic() - written < 3
    served.wait_for(r"(new certificate in use)", served.log)
    assert "refused" not in "".join(served.log)


async def test_new_certificate_breaks_none_of_fifty_streams(serve: Serve, tmp_path: Path) -> None:
    made = self_signed(["localhost", "127.0.0.1"], tmp_path / "ssl")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    # They flow while the certificate changes, and none ends before.
    scripted = fake_model(tmp_path, chunks=CHUNKS, pause=0.04, gate=gate, gate_at=CHUNKS - 1)
    model = {**scripted, "parallel": STREAMS}
    served = serve("--config", str(tls_project(tmp_path / "p", {"m": model}, made)))
    trust = trusting(made)
    old = await asyncio.to_thread(presented, served, trust)
    begun = [asyncio.Event() for _ in range(STREAMS)]

    async with served.async_client(
        http_client=openai.DefaultAsyncHttpxClient(verify=trust)
    ) as client:

        async def read(index: int) -> tuple[str, str | None]:
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}], stream=True
            )
            text, finish = "", None
            async for part in stream:
                begun[index].set()
                text += part.choices[0].delta.content or ""
                finish = part.choices[0].finish_reason or finish
            return text, finish

        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(read(index)) for index in range(STREAMS)]
            for event in begun:
                await event.wait()
            self_signed(["localhost", "127.0.0.1"], tmp_path / "ssl", force=True)
            served.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(30):
                while await asyncio.to_thread(presented, served, trust) == old:
                    pass  # each look is a connection of its own
            assert not any(reader.done() for reader in readers)
            with opened(gate):
                await asyncio.wait(readers)
    whole = "".join(f"word{number} " for number in range(CHUNKS))
    assert [reader.result() for reader in readers] == [(whole, "stop")] * STREAMS
    assert served.stop() == 0
    assert "Traceback" not in "".join(served.log)


def test_an_expired_certificate_is_served_and_reported(
    serve: Serve, tmp_path: Path, forge: Any
) -> None:
    tls = forge.write(forge.issue(forge.root, end=forge.now), forge.root)
    files = {key: str(getattr(tls, key)) for key in ("private_key", "certificate", "ca_chain")}
    config = project(tmp_path / "p", {}, tls={"enabled": True, **files})
    served = serve("--config", str(config))
    assert served.wait_for(r"tls\.certificate: (expired) on", served.log)
    assert served.stop() == 0


async def test_certificate_is_watched_on_after_what_nobody_expected(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = await asyncio.to_thread(self_signed, ["localhost"], tmp_path)
    files = {"private_key": str(made.private_key), "certificate": str(made.certificate)}

    async def wait_for(text: str) -> None:
        async with asyncio.timeout(20):
            while text not in caplog.text:
                await asyncio.sleep(0.05)

    caplog.set_level(logging.INFO)
    async with make_gateway({}, tls={"enabled": True, **files}) as running:
        reloader = running.gateway.listeners.tls.reloader
        assert reloader is not None

        def crash(info: object) -> None:
            reloader.changed = None
            raise ValueError("what nobody expected")

        reloader.changed = crash
        await asyncio.to_thread(self_signed, ["localhost"], tmp_path, force=True)
        await wait_for("task watch the certificate crashed")
        await asyncio.to_thread(self_signed, ["localhost"], tmp_path, force=True)
        await wait_for("new certificate in use")
