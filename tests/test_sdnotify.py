"""sd_notify against a real datagram socket, as systemd binds it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.sdnotify import Notifier
from gateway.tasks import cancel_and_wait, spawn


class Manager:
    """The service manager's end: receives what is sent, one datagram at a time."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.sock.settimeout(5)
        self.environ = {"NOTIFY_SOCKET": address}

    def received(self) -> list[str]:
        return self.sock.recv(4096).decode().split("\n")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    abstract = f"@llm-gateway-test-{uuid.uuid4().hex}"
    manager = Manager(abstract if request.param == "abstract" else str(tmp_path / "notify"))
    yield manager
    manager.sock.close()


def test_each_state_arrives_as_systemd_reads_it(manager: Manager) -> None:
    notifier = Notifier(manager.environ)

    assert notifier.enabled
    assert notifier.ready("2 models, listening on 127.0.0.1:8080")
    assert manager.received() == ["READY=1", "STATUS=2 models, listening on 127.0.0.1:8080"]
    assert notifier.stopping()
    assert manager.received() == ["STOPPING=1"]
    assert notifier.status("loading demo")
    assert manager.received() == ["STATUS=loading demo"]
    assert notifier.watchdog()
    assert manager.received() == ["WATCHDOG=1"]
    assert notifier.extend_timeout(90.5)
    assert manager.received() == ["EXTEND_TIMEOUT_USEC=90500000"]


def test_reloading_carries_the_monotonic_time(manager: Manager) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier(manager.environ).reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    state, stamp = manager.received()
    assert state == "RELOADING=1"
    name, _, microseconds = stamp.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= after


def test_a_status_cannot_smuggle_in_another_variable(manager: Manager) -> None:
    notifier = Notifier(manager.environ)

    notifier.status("crashed:\nMAINPID=1\r\n\ttry again")
    assert manager.received() == ["STATUS=crashed: MAINPID=1 try again"]
    notifier.status("")
    assert manager.received() == ["STATUS="]


@pytest.mark.parametrize("value", ["", "@", "relative/notify", "vsock:2:1234"])
def test_nothing_is_sent_without_a_usable_socket(value: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": value, "WATCHDOG_USEC": "1000000"})

    assert not notifier.enabled
    assert notifier.watchdog_interval is None
    assert not notifier.ready()


def test_the_process_environment_is_read_and_left_alone(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.environ["NOTIFY_SOCKET"])
    before = dict(os.environ)

    assert Notifier().ready()

    assert manager.received() == ["READY=1"]
    assert dict(os.environ) == before


@pytest.mark.parametrize("place", ["missing/notify", "x" * 200, "nul\0byte"])
def test_a_socket_that_cannot_be_reached_does_no_harm(tmp_path: Path, place: str) -> None:
    assert not Notifier({"NOTIFY_SOCKET": f"{tmp_path}/{place}"}).ready()


def test_a_manager_that_does_not_read_never_blocks_us(manager: Manager) -> None:
    notifier = Notifier(manager.environ)

    # Its queue has an end (net.unix.max_dgram_qlen, and the buffer); the sender must not wait.
    assert any(not notifier.status("x" * 1000) for _ in range(10_000))


@pytest.mark.parametrize(
    ("variables", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "me"}, None),
        ({}, None),
    ],
)
def test_watchdog_interval_is_half_of_the_deadline(
    variables: dict[str, str], interval: float | None
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "/run/notify"} | variables)
    assert notifier.watchdog_interval == interval


async def test_keep_alive_feeds_the_watchdog_again_and_again(manager: Manager) -> None:
    manager.sock.setblocking(False)
    notifier = Notifier(manager.environ | {"WATCHDOG_USEC": "20000"})
    task = spawn(notifier.keep_alive(lambda: True), name="watchdog")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        assert [await loop.sock_recv(manager.sock, 4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    await cancel_and_wait(task)
    assert task.cancelled()


async def test_watchdog_is_not_fed_while_the_rest_is_dead(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    manager.sock.setblocking(False)
    notifier = Notifier(manager.environ | {"WATCHDOG_USEC": "20000"})
    said = iter([True, False, False])
    looked = asyncio.Event()

    def alive() -> bool:
        answer = next(said, None)
        if answer is None:
            looked.set()
        return bool(answer)

    task = spawn(notifier.keep_alive(alive), name="watchdog")
    async with asyncio.timeout(5):
        await looked.wait()
    await cancel_and_wait(task)

    assert manager.sock.recv(4096) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        manager.sock.recv(4096)
    assert "the watchdog is not fed" in caplog.text


async def test_keep_alive_without_a_watchdog_returns_at_once(manager: Manager) -> None:
    async with asyncio.timeout(5):
        await Notifier(manager.environ).keep_alive(lambda: True)
