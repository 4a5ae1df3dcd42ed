"""What `llm-gateway serve` tells its service manager: a real notify socket, as systemd has it."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import FAKE, MakeGateway, Served, fake_model, opened, project, wait_until
from tests.serve.processes import STORY, Serve
from tests.test_demo import get


class Manager:
    """The service manager's end of the socket, which is always read: what doesn't fit is lost."""

    def __init__(self, address: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        self._messages: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        #: For the process that it starts, whose watchdog is to be fed twice a second.
        self.environ = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "1000000"}

    def told(self, *beginnings: str) -> list[list[str]]:
        """The next message with each of these beginnings, in this order; others are skipped."""
        found = []
        for beginning in beginnings:
            lines = [""]
            while not lines[0].startswith(beginning):
                lines = self._messages.get(timeout=20)
            found.append(lines)
        return found

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            self._messages.put(message.decode().split("\n"))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._reader.join()
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify.sock")
    yield manager
    manager.close()


def started(serve: Serve, manager: Manager, folder: Path, **model: str) -> Served:
    models = {"m": fake_model(folder, **model)}
    config = project(folder / "p", models, llama_server=str(FAKE), shutdown_timeout="50s")
    return serve("--config", str(config), env=manager.environ)


def test_service_manager_is_told_when_it_is_ready_and_that_it_lives(
    serve: Serve, manager: Manager, tmp_path: Path
) -> None:
    served = started(serve, manager, tmp_path)
    (ready,) = manager.told("READY=1")
    assert get(served, "/health", key="-")[0] == 200
    assert ready[1] == f"STATUS=listening on {served.url}"
    manager.told("WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1")


def test_each_reload_is_told_by_its_time_and_its_end(
    serve: Serve, manager: Manager, tmp_path: Path
) -> None:
    served = started(serve, manager, tmp_path)
    manager.told("READY=1")
    file = tmp_path / "p/data/models.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "n": fake_model(tmp_path)}))
    for _ in range(2):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        served.process.send_signal(signal.SIGHUP)
        reloading, _ready = manager.told("RELOADING=1", "READY=1")
        name, _, stamp = reloading[1].partition("=")
        assert name == "MONOTONIC_USEC"
        assert int(stamp) >= before
    assert get(served, "/models")[1] == ["m", "n"]


def test_failed_reload_ends_for_the_service_manager_too(
    serve: Serve, manager: Manager, tmp_path: Path
) -> None:
    served = started(serve, manager, tmp_path)
    wait_until(lambda: get(served, "/ready", key="-")[0] == 200, 20, "ready")
    manager.told("READY=1")
    database = tmp_path / "p/data/gateway.db"
    database.write_bytes(b"\0" * database.stat().st_size)
    served.process.send_signal(signal.SIGHUP)
    manager.told("RELOADING=1", "READY=1")
    assert get(served, "/health", key="-")[0] == 200


def test_service_manager_is_told_of_the_end_and_what_it_waits_for(
    serve: Serve, manager: Manager, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    served = started(serve, manager, tmp_path, gate=str(gate))
    with served.client() as client:
        stream = client.chat.completions.create(model="m", messages=STORY, stream=True)
        next(iter(stream))
        served.process.send_signal(signal.SIGTERM)
        _, extended, status, _, later = manager.told(
            "STOPPING=1", "EXTEND_TIMEOUT_USEC=", "STATUS=", "WATCHDOG=1", "STATUS="
        )
        assert extended == ["EXTEND_TIMEOUT_USEC=90000000"]  # shutdown_timeout, and the rest
        assert status == ["STATUS=stopping: answers 1 request, for 50 s at most"]
        assert later == ["STATUS=stopping: answers 1 request, for 49 s at most"]
        with opened(gate):
            assert [*stream][-1].choices[0].finish_reason == "stop"
    assert served.stop() == 0


@pytest.mark.parametrize("streams", [1, 3])
async def test_status_tells_models_requests_and_tokens(
    make_gateway: MakeGateway, manager: Manager, tmp_path: Path, streams: int
) -> None:
    from gateway.sdnotify import Notifier
    from gateway.status_line import keep_told
    from gateway.tasks import cancel_and_wait, spawn

    model = fake_model(tmp_path, chunks=1000, pause=0.01)
    async with make_gateway({"m": {**model, "parallel": 4}}) as running, running.openai() as client:
        asked = [
            await client.chat.completions.create(model="m", messages=STORY, stream=True)
            for _ in range(streams)
        ]
        telling = spawn(
            keep_told(Notifier(manager.environ), running.gateway, every=0.2), name="tell"
        )
        for stream in asked:
            for _ in range(30):
                await anext(aiter(stream))
        await cancel_and_wait(telling)
        (said,) = manager.told("STATUS=")
        for stream in asked:
            await stream.close()
    plural = "" if streams == 1 else "s"
    beginning = f"STATUS=listening on {running.url}; loaded: m; {streams} request{plural}; "
    assert said[0].startswith(beginning)
    assert said[0].endswith(" tokens/s")
