"""What strangers can make the log say: so many lines, and no traceback, whatever they send."""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import queue
import random
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.log_bound import REQUESTS, Allowance, is_a_clients, is_a_strangers
from gateway.log_output import TextOutput
from gateway.logs import LogWriter
from gateway.tls import SelfSigned, self_signed
from tests.harness import FAKE, Served, fake_model, project, wait_until

Secure = tuple[Served, SelfSigned]
CHAT = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'


@pytest.fixture
def secure(request: pytest.FixtureRequest, serve: Callable[..., Served], tmp_path: Path) -> Secure:
    """A gateway over TLS with a port that leads to https; ``without`` uvloop, if that is asked."""
    env = {}
    if getattr(request, "param", None) == "asyncio":
        (tmp_path / "without").mkdir()
        (tmp_path / "without/uvloop.py").write_text("raise ImportError('there is none here')\n")
        env["PYTHONPATH"] = str(tmp_path / "without")
    made = self_signed(["localhost", "127.0.0.1"], tmp_path / "ssl")
    tls = {"enabled": True, "redirect_port": 0, "certificate": str(made.certificate)}
    tls |= {"private_key": str(made.private_key), "ca_chain": str(made.chain)}
    models = {"m": fake_model(tmp_path)}
    config = project(tmp_path / "p", models, llama_server=str(FAKE), tls=tls)
    served = serve("--config", str(config), env=env)
    assert served.key
    return served, made


def port_of(served: Served) -> int:
    return int(served.url.rpartition(":")[2])


@contextlib.contextmanager
def connection(secure: Secure) -> Iterator[http.client.HTTPSConnection]:
    served, made = secure
    context = ssl.create_default_context(cafile=str(made.chain))
    port = port_of(served)
    client = http.client.HTTPSConnection("localhost", port, timeout=20, context=context)
    with contextlib.closing(client):
        yield client


def status(client: http.client.HTTPConnection, method: str, path: str, **options: Any) -> int:
    client.request(method, path, **options)
    answer = client.getresponse()
    answer.read()
    return answer.status


def say(port: int, data: bytes) -> None:
    """Send that, and no more; take what comes until the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as stranger:
        try:
            stranger.sendall(data)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(65536):
                pass
        except ConnectionError:
            pass


def client_hello(name: str = "localhost") -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def strange() -> Iterator[bytes]:
    """What is no ClientHello, or an odd one."""
    hello, chance = client_hello(), random.Random(7)
    for name in (b"\xff" * 9, b"caf\xe9.test", b"loc\0lhost", b"a b\r\n\x1b[1m", b"%s%s%s%s%"):
        yield hello.replace(b"localhost", name)
    for _ in range(80):
        odd = bytearray(hello)
        for _ in range(chance.choice((1, 2, 8))):
            odd[chance.randrange(len(odd))] = chance.randrange(256)
        yield bytes(odd)
    for _ in range(20):
        yield hello[: chance.randrange(1, len(hello))]
        yield chance.randbytes(chance.randrange(1, 2000))
    yield hello[:3] + b"\xff\xff" + hello[5:] + bytes(70_000)  # a record that is too long
    yield b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n"


@pytest.mark.parametrize("secure", ["uvloop", "asyncio"], indirect=True)
def test_odd_handshakes_write_no_traceback(secure: Secure, subtests: pytest.Subtests) -> None:
    served, _ = secure
    plain = int(served.wait_for(r"http://\S+:(\d+) leads to https", served.log))
    for data in strange():
        say(port_of(served), data)
        if data[:1] != b"\x16" or data[:3] == b"\x16\x03\x01":
            say(plain, data)
    with connection(secure) as client:
        assert status(client, "GET", "/models", headers={"X-Api-Key": served.key}) == 200
    assert served.stop() == 0
    text = "".join(served.log)
    assert "GET /models 200" in text
    for bad in ("Traceback", "Exception ignored", "Error", "ERROR", "Fatal"):
        with subtests.test(f"{bad!r:.80}"):
            assert bad not in text, text


def test_a_flood_is_a_bounded_number_of_lines(secure: Secure) -> None:
    served, _ = secure
    key = {"X-Api-Key": served.key}
    body: Any = {"body": CHAT, "headers": {"Content-Type": "application/json"}}
    seen = []
    with connection(secure) as client:
        for number in range(1900):
            if number % 500 == 250:
                assert status(client, "GET", f"/models?{number}", headers=key) == 200
            if number % 2:
                seen.append(status(client, "POST", "/v1/chat/completions", **body))
            else:
                seen.append(status(client, "GET", "/nothing"))
    assert set(seen) == {401}
    port = port_of(served)
    for number in range(100):
        say(port, b"GET / HTTP/1.1\r\n\r\n" if number % 2 else b"\x16\x03\x01\xff\xff" + bytes(99))
    assert served.stop() == 0
    lines = [line for line in served.log if "gateway.access" in line]
    ours = [line for line in lines if "GET /models 200" in line]
    assert len(ours) == 4
    strangers = len(lines) - len(ours)
    told = sum(map(int, re.findall(r"left out (\d+) more lines of requests", "".join(served.log))))
    assert strangers + told == 1950  # a record that is no TLS is not said anything of
    seconds = _span(lines)
    burst, rate = REQUESTS
    assert strangers <= burst + rate * (seconds + 1)
    assert len(served.log) - len(lines) < 20 + seconds
    assert "Traceback" not in "".join(served.log)


def _span(lines: list[str]) -> float:
    """Seconds from the first of ``lines`` to the last."""
    first, last = (datetime.fromisoformat(line[:19]) for line in (lines[0], lines[-1]))
    return (last - first).total_seconds()


def test_the_bucket_gives_so_many_and_then_some_a_second() -> None:
    now = [0.0]
    allowance = Allowance(3, 2.0, clock=lambda: now[0])
    assert [allowance.take() for _ in range(5)] == [True, True, True, False, False]
    assert allowance.untold() == 2
    now[0] = 0.5
    assert [allowance.take() for _ in range(2)] == [True, False]
    assert (allowance.untold(), allowance.untold(), allowance.left_out) == (1, 0, 3)
    now[0] = 100.0
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


def test_only_lines_of_strangers_are_bounded() -> None:
    assert is_a_strangers("-", 401)
    assert is_a_strangers("-", 200)  # /ping
    assert is_a_strangers("anonymous", 403)
    assert not is_a_strangers("anonymous", 200)
    assert not is_a_strangers("key_1", 400)

    def bounded(name: str, level: int, error: Any = None) -> bool:
        return is_a_clients(logging.LogRecord(name, level, "", 0, "", None, error))

    assert bounded("asyncio", logging.ERROR)
    assert bounded("gateway.http.client_connection", logging.INFO)
    assert bounded(
        "gateway.http.aiohttp_connection", logging.ERROR, (ValueError, ValueError(), None)
    )
    assert not bounded("gateway.http.connections", logging.WARNING)  # once a minute
    assert not bounded("gateway.backends.backend", logging.INFO)


def test_what_is_left_out_is_told_when_it_is_quiet_again() -> None:
    written = io.StringIO()
    writer = LogWriter(queue.SimpleQueue(), TextOutput(written), tell_every=0.2)
    writer.start()
    try:
        for times in (1, 2):
            for number in range(500):
                writer.log_request((f"req_{number}", "GET", "/", 401, 0.0, "-", "-", "192.0.2.1"))
                if number % 100 == 0:
                    writer.log_request(("req", "GET", "/", 200, 0.0, "key", "-", "192.0.2.1"))
            wait_until(partial(has_told, written, times), 20, "the number is told")
    finally:
        writer.stop()
    text = written.getvalue()
    left_out = sum(map(int, re.findall(r"left out (\d+) more lines of requests without", text)))
    assert text.count("key=- ") + left_out == 1000
    assert text.count("key=key") == 10


def has_told(written: io.StringIO, times: int) -> bool:
    return written.getvalue().count("WARNING gateway.logs: left out") == times
