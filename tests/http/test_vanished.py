"""A client whose network vanished sends neither FIN nor RST, and yet doesn't hold its slot."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from tests.harness import MakeGateway, Running, fake_model
from tests.vanishing import connect_from, network
from tests.wire import CHAT, post, with_tls

pytestmark = pytest.mark.slow

PATIENCE = 4.0  # seconds
STREAM = CHAT[:-1] + b', "stream": true}'
#: By the names of their models: what such a client has asked, and whether it has got some of it.
PHASES = {
    "hangs": (CHAT, False),
    "hangs-streaming": (STREAM, False),
    "loads": (CHAT, False),
    "loads-streaming": (STREAM, False),
    "talks-streaming": (STREAM, True),
}
DOORS = (b"/v1/chat/completions ", b"/v1/chat/completions?x=1 ")


def busy(running: Running) -> dict[str, int]:
    """How many requests of each model run or wait."""
    statuses = running.gateway.scheduler.status()
    return {s.name: s.in_flight + s.queued for s in statuses if s.in_flight or s.queued}


@pytest.mark.parametrize("tls", [False, True])
async def test_who_vanished_frees_its_slot(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture, tls: bool
) -> None:
    caplog.set_level("INFO")
    models = {
        name: fake_model(
            tmp_path,
            **{"hang": 1} if name.startswith("hangs") else {},
            **{"never_healthy": 1} if name.startswith("loads") else {},
            **{"chunks": 1_000_000, "pause": 0.02} if name.startswith("talks") else {},
        )
        for name in (*PHASES, "alive")
    }
    models["alive"]["env"]["FAKE_HANG"] = "1"
    with network() as there, contextlib.ExitStack() as stack:
        settings: dict[str, Any] = {"host": there.here, "allowed_hosts": ["*"]}
        settings["limits"] = {"send_timeout": f"{PATIENCE}s", "heartbeat": "60s"}
        trusting: ssl.SSLContext | None = None
        if tls:
            settings["tls"], trusting = with_tls(tmp_path)
            trusting.check_hostname = False
        async with make_gateway(models, **settings) as running:
            port = int(running.url.rpartition(":")[2])
            loop = asyncio.get_running_loop()

            async def ask(model: str, body: bytes, answered: bool, door: bytes) -> None:
                asked = post(running, body.replace(b'"good"', f'"{model}"'.encode()))
                asked = asked.replace(DOORS[0], door)
                came = stack.enter_context(await connect_from(there, port))
                if trusting is None:
                    await loop.sock_sendall(came, asked)
                    if answered:
                        assert (await loop.sock_recv(came, 100)).startswith(b"HTTP/1.1 200 ")
                    return
                came.setblocking(True)
                secured = stack.enter_context(await asyncio.to_thread(trusting.wrap_socket, came))
                await asyncio.to_thread(secured.sendall, asked)
                if answered:
                    assert (await asyncio.to_thread(secured.recv, 100)).startswith(b"HTTP/1.1 200")

            alive = await connect(running, there.here, port, trusting)
            stack.push(lambda *_: alive.close())
            alive.write(post(running, CHAT.replace(b"good", b"alive")))
            await asyncio.gather(
                *[ask(model, *what, door) for model, what in PHASES.items() for door in DOORS]
            )
            async with asyncio.timeout(20):
                while busy(running) != dict.fromkeys(PHASES, 2) | {"alive": 1}:
                    await asyncio.sleep(0.02)
            there.vanish()
            since = time.monotonic()
            async with asyncio.timeout(PATIENCE + 8):
                while busy(running) != {"alive": 1}:
                    await asyncio.sleep(0.02)
            assert time.monotonic() - since < PATIENCE + 3
            # Who only waits, and answers the kernel's questions, is waited for.
            await asyncio.sleep(PATIENCE)
            assert busy(running) == {"alive": 1}
    assert "out of reach" in caplog.text
    assert not [r.getMessage() for r in caplog.records if r.exc_info]


async def connect(
    running: Running, host: str, port: int, trusting: ssl.SSLContext | None
) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection(host, port, ssl=trusting)
    return writer
