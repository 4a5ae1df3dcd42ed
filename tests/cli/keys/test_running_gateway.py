"""What ``llm-gateway keys`` tells a running gateway."""

import asyncio
import json
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.cli.control import ControlError, control_request, notify_running_gateway
from gateway.config.settings import Settings
from tests.cli.keys.commands import Keys, rows
from tests.harness import MakeGateway


async def test_a_running_gateway_knows_at_once(
    make_gateway: MakeGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with make_gateway({}) as running:
        config = ["--config", str(tmp_path / "project" / "conf" / "gateway.yaml")]

        async def command(*arguments: str) -> str:
            assert await asyncio.to_thread(main, ["keys", *arguments, *config]) == 0
            out, err = capsys.readouterr()
            assert "the running gateway has been told" in err
            return out

        key = (await command("create", "phone")).splitlines()[-1]
        assert (await running.json("GET", "/models", key=key))[0] == 200
        assert running.gateway.ring is not None
        (key_id,) = [r.id for r in running.gateway.ring.records if r.name == "phone"]
        await command("revoke", key_id)
        assert (await running.json("GET", "/models", key=key))[0] == 401


def _received(connection: socket.socket) -> bytes:
    """One request: its head and its body come in two pieces."""
    request = b""
    while piece := connection.recv(65536):
        request += piece
        head, end, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if end and len(body) >= (int(length[1]) if length else 0):
            break
    return request


class Pretender:
    """Something that listens where the control socket should be, and answers fixed bytes."""

    def __init__(self, answer: bytes | None) -> None:
        # Not tmp_path: a Unix socket's path may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="llmgw-"))
        self.path = self.folder / "control.sock"
        self.answer = answer
        self.requests: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            self.requests.append(_received(connection))
            if self.answer is None:
                connection.recv(1)  # until the client gives up
            else:
                connection.sendall(self.answer)

    def close(self) -> None:
        if self._thread.is_alive():
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(self.path))
        self._thread.join()
        self._socket.close()
        shutil.rmtree(self.folder)


@pytest.fixture
def pretend(tmp_path: Path) -> Iterator[Callable[[bytes | None], Pretender]]:
    started: list[Pretender] = []

    def start(answer: bytes | None) -> Pretender:
        pretender = Pretender(answer)
        started.append(pretender)
        (tmp_path / "data").mkdir(exist_ok=True)
        note = {"pid": 1, "control": str(pretender.path)}
        (tmp_path / "data" / "gateway.json").write_text(json.dumps(note))
        return pretender

    yield start
    for pretender in started:
        pretender.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def http(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_a_control_request_reaches_the_gateway(
    settings: Settings, pretend: Callable[[bytes], Pretender]
) -> None:
    gateway = pretend(http("404 Not Found", '{"error": {"message": "no"}}'))
    answer = control_request(settings, "PATCH", "/admin/x?y=1", {"a": "é"})
    assert answer == (404, {"error": {"message": "no"}})
    (request,) = gateway.requests
    assert request.startswith(b"PATCH /admin/x?y=1 HTTP/1.1\r\nHost: localhost\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in request
    assert json.loads(request.partition(b"\r\n\r\n")[2]) == {"a": "é"}


def test_without_a_gateway_nobody_is_told(settings: Settings, tmp_path: Path) -> None:
    assert control_request(settings, "GET", "/") is None
    assert notify_running_gateway(settings) is False
    # One that was killed: its note is there, its socket gone, or there but dead.
    (tmp_path / "data").mkdir()
    with tempfile.TemporaryDirectory(prefix="llmgw-") as folder:
        path = Path(folder) / "control.sock"
        (tmp_path / "data" / "gateway.json").write_text(json.dumps({"control": str(path)}))
        assert control_request(settings, "GET", "/") is None
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        assert control_request(settings, "GET", "/") is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http("503 Service Unavailable", '{"error": {"message": "later"}}'), "503: later"),
        (http("500 Internal Server Error", "[]"), "500: no reason given"),
        (http("200 OK", "not json"), "cannot be talked to"),
        (b"SSH-2.0\r\n", "cannot be talked to"),
        (b"", "cannot be talked to"),
    ],
)
def test_wrong_answer_of_a_gateway_is_an_error(
    settings: Settings, pretend: Callable[[bytes], Pretender], answer: bytes, said: str
) -> None:
    pretend(answer)
    with pytest.raises(ControlError, match=said):
        notify_running_gateway(settings)


def test_silent_gateway_is_an_error(
    settings: Settings, pretend: Callable[[bytes | None], Pretender]
) -> None:
    pretend(None)
    with pytest.raises(ControlError, match=r"did not answer within 0\.1 s"):
        control_request(settings, "GET", "/", timeout=0.1)


@pytest.mark.parametrize("note", ["", "[]", "{}", "null"])
def test_damaged_note_of_a_gateway_is_an_error(
    settings: Settings, tmp_path: Path, note: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gateway.json").write_text(note)
    with pytest.raises(ControlError, match=r"gateway\.json cannot be read"):
        control_request(settings, "GET", "/")


def test_revoke_fails_if_the_gateway_goes_on_accepting_the_key(
    keys: Keys, pretend: Callable[[bytes], Pretender]
) -> None:
    keys("create", "phone")
    ((key_id, *_),) = rows(keys("list")[1])
    pretend(http("500 Internal Server Error", "{}"))
    status, out, err = keys("revoke", key_id)
    assert (status, out) == (1, f"revoked {key_id} (phone)\n")
    assert err.startswith("warning: saved, but the running gateway answered 500")
