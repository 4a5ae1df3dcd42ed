"""Sockets that a service manager opened: no connection is refused while the gateway restarts."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.http.inherited import UnusableSocket, take
from gateway.tasks import spawn
from gateway.tls.selfsigned import self_signed
from tests.harness import FAKE, Served, fake_model, opened, project
from tests.serve.processes import STORY, Serve

#: So many clients connect again and again while the gateway restarts.
CLIENTS = 200


@pytest.fixture
def listening() -> Iterator[Callable[..., socket.socket]]:
    """Open listening sockets whose numbers are in nobody's way."""
    with contextlib.ExitStack() as stack:

        def listen(address: Any = ("127.0.0.1", 0), *, family: int = socket.AF_INET) -> Any:
            with socket.socket(family) as first:
                if family != socket.AF_UNIX:
                    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                first.bind(address)
                first.listen(4096)
                high = fcntl.fcntl(first.fileno(), fcntl.F_DUPFD_CLOEXEC, 100)
            return stack.enter_context(socket.socket(fileno=high))

        yield listen


async def ended(served: Served) -> None:
    assert await asyncio.to_thread(served.stop, seconds=40) == 0


class Crowd:
    """Clients that ask again and again, each time by a new connection, until they are to stop."""

    def __init__(self, url: str, key: str, trust: ssl.SSLContext | None) -> None:
        self.answered = 0
        self._url = f"{url}/v1/chat/completions"
        self._key = key
        self._trust = trust
        self._stop = False
        self._more = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            asyncio.TaskGroup() as all_,
        ):
            for _ in range(CLIENTS):
                all_.create_task(self._ask(session))
            yield
            self._stop = True

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        while not self._stop:
            async with session.post(
                self._url,
                json={"model": "m", "messages": STORY},
                headers={"Authorization": f"Bearer {self._key}"},
                ssl=self._trust if self._trust is not None else True,
            ) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            self.answered += 1
            self._more.set()

    async def goes_on(self, further: int) -> None:
        """Return when so many more have been answered."""
        until = self.answered + further
        async with asyncio.timeout(60):
            while self.answered < until:
                self._more.clear()
                await self._more.wait()


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_restart_loses_no_request_of_connecting_clients(
    serve: Serve, tmp_path: Path, listening: Callable[..., socket.socket], *, tls: bool
) -> None:
    settings: dict[str, Any] = {"limits": {"queue_size": 2 * CLIENTS}}
    trust = None
    if tls:
        made = self_signed(["127.0.0.1"], tmp_path)
        settings["tls"] = {
            "enabled": True,
            "private_key": str(made.private_key),
            "certificate": str(made.certificate),
        }
        trust = ssl.create_default_context(cafile=str(made.chain))
    model = {**fake_model(tmp_path), "parallel": 8}
    config = project(tmp_path / "p", {"m": model}, llama_server=str(FAKE), **settings)
    sockets = [("https" if tls else "http", listening())]

    first = serve("--config", str(config), sockets=sockets)
    url, key = await asyncio.to_thread(lambda: (first.url, first.key))
    assert url.endswith(f":{sockets[0][1].getsockname()[1]}")
    crowd = Crowd(url, key, trust)
    async with crowd.running():
        await crowd.goes_on(CLIENTS)
        await ended(first)
        second = serve("--config", str(config), sockets=sockets)
        await crowd.goes_on(CLIENTS)
    await ended(second)


async def test_running_stream_ends_before_the_gateway_does(
    serve: Serve, tmp_path: Path, listening: Callable[..., socket.socket]
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    model = fake_model(tmp_path, gate=str(gate))
    config = project(tmp_path / "p", {"m": model}, llama_server=str(FAKE))
    served = serve("--config", str(config), sockets=[("http", listening())])
    async with served.async_client() as client:
        stream = await client.chat.completions.create(model="m", messages=STORY, stream=True)
        pieces = aiter(stream)
        await anext(pieces)
        stopped = spawn(ended(served), name="stop the gateway")
        await asyncio.to_thread(served.wait_for, r"(shutting down); 1 running", served.log)
        with opened(gate):
            rest = [piece async for piece in pieces]
    assert rest[-1].choices[0].finish_reason == "stop"
    await stopped


@pytest.mark.slow
async def test_requests_that_come_one_by_one_after_the_end_began_are_answered(
    serve: Serve, tmp_path: Path, listening: Callable[..., socket.socket]
) -> None:
    """As on a machine that is so busy that handshakes and requests of many clients take long."""
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    there = listening()
    served = serve("--config", str(config), sockets=[("http", there)])
    key = await asyncio.to_thread(lambda: (served.url, served.key)[1])
    waiting = [await asyncio.open_connection(*there.getsockname()) for _ in range(3)]
    async with served.async_client() as client:  # so that the others have been accepted
        await client.models.list()
    stopped = spawn(ended(served), name="stop the gateway")
    await asyncio.to_thread(served.wait_for, r"(shutting down)", served.log)
    for reader, writer in waiting[:2]:
        await asyncio.sleep(1.4)  # the gateway gives up after two seconds without one
        head = f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n\r\n"
        writer.write(head.encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    await stopped
    assert await waiting[2][0].read() == b""  # it never asked, and kept nobody waiting
    for _, writer in waiting:
        writer.close()


def test_control_socket_that_is_handed_over_is_the_owners(
    serve: Serve, tmp_path: Path, listening: Callable[..., socket.socket]
) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    control = tmp_path / "control.sock"
    sockets = [
        ("http", listening()),
        ("control", listening(str(control), family=socket.AF_UNIX)),
    ]
    served = serve("--config", str(config), sockets=sockets)
    assert served.key  # requests are let in

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(control))
        client.sendall(b"GET /admin/keys HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = client.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https", "named https, but tls.enabled is false"),
        ("redirect", "named redirect, but tls.enabled is false"),
        ("llm-gateway.socket", "one of http, https, redirect, control"),
        ("control", "the socket named control is no Unix socket"),
    ],
)
def test_socket_of_no_use_is_told_at_the_start(
    serve: Serve,
    tmp_path: Path,
    listening: Callable[..., socket.socket],
    name: str,
    message: str,
) -> None:
    config = project(tmp_path / "p", {}, llama_server=str(FAKE))

    served = serve("--config", str(config), sockets=[(name, listening())])

    assert served.ended() == 1
    assert message in "".join(served.log)


def test_variables_of_another_process_are_ignored_and_removed() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:https", "HOME": "/"}

    assert take(environ).main == ()

    assert environ == {"HOME": "/"}


def test_names_that_do_not_match_are_refused() -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http"}

    with pytest.raises(UnusableSocket, match="LISTEN_FDNAMES has 1 names, and LISTEN_FDS is 2"):
        take(environ)
