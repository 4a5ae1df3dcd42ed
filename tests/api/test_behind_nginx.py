"""A real nginx in front, which takes a second of silence for the end."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import MakeGateway, Running, fake_model

pytestmark = pytest.mark.slow

CONFIG = """daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass {url}; proxy_read_timeout 1s; }}
    }}
}}
"""


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    """A gateway whose model needs three seconds to start, asked by way of nginx."""
    if (nginx := shutil.which("nginx", path="/usr/sbin:/usr/bin")) is None:
        pytest.skip("needs nginx: apt-get install nginx-light")
    model = fake_model(tmp_path, start_delay=3)
    async with make_gateway({"m": model}, limits={"heartbeat": "0.6s"}) as running:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = tmp_path / "nginx.conf"
        config.write_text(CONFIG.format(folder=tmp_path, port=port, url=running.url))
        process = subprocess.Popen([nginx, "-e", "stderr", "-c", str(config)])
        try:
            async with asyncio.timeout(20):
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                    except OSError:
                        await asyncio.sleep(0.05)
                    else:
                        writer.close()
                        break
            running.url = f"http://127.0.0.1:{port}"
            yield running
        finally:
            process.terminate()
            process.wait()


async def asked(running: Running, path: str, **body: Any) -> tuple[int, str]:
    async with running.request("POST", path, json={"model": "m", **body}) as response:
        return response.status, await response.text()


async def test_a_stream_outlasts_its_patience_and_a_whole_answer_does_not(
    running: Running,
) -> None:
    messages = [{"role": "user", "content": "hi"}]
    status, got = await asked(running, "/v1/chat/completions", messages=messages, stream=True)
    assert status == 200
    assert got.startswith(": ")
    assert got.endswith("data: [DONE]\n\n")
    await running.gateway.scheduler.unload("m")
    status, _ = await asked(running, "/v1/chat/completions", messages=messages)
    assert status == 504


async def test_heartbeats_come_through_as_they_are_written(running: Running) -> None:
    """It keeps nothing back: ``X-Accel-Buffering: no``."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with running.request("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["X-Gateway-Model"] == "m"
        seen: list[bytes] = []
        while not (data := await response.content.readany()).startswith(b"data: "):
            seen.append(data)
        assert len(seen) >= 5
