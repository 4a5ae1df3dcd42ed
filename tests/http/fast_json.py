"""What tests of the fast JSON protocol share: its connections, and answers as bytes."""

from __future__ import annotations

import socket

from gateway.http.fast_json import FastConnection
from gateway.http.fast_listener import FastListener
from tests.harness import Running, eventually
from tests.wire import CHAT

STREAM = CHAT[:-1] + b', "stream": true}'


FIRST = "POST /v1/chat/completions HTTP/1.1"


def listener_of(running: Running) -> FastListener:
    return running.gateway.listeners.fast_json


def only_connection(running: Running) -> FastConnection:
    """Return the one that there is."""
    (front,) = listener_of(running).open
    assert isinstance(front, FastConnection)
    return front


def answers_in(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers and body of each answer; whatever is no answer fails."""
    found = []
    while data:
        text, _, data = data.partition(b"\r\n\r\n")
        line, *lines = text.decode().split("\r\n")
        assert line.startswith("HTTP/1.1 ")
        fields = [line.partition(": ") for line in lines]
        headers = {name.lower(): value for name, _, value in fields}
        assert len(headers) == len(fields)
        body = b""
        if "content-length" in headers:
            assert "transfer-encoding" not in headers
            length = int(headers["content-length"])
            body, data = data[:length], data[length:]
            assert len(body) == length
        else:
            assert headers["transfer-encoding"] == "chunked"
            size = 1
            while size:
                digits, _, data = data.partition(b"\r\n")
                size = int(digits, 16)
                assert data[size : size + 2] == b"\r\n"
                body, data = body + data[:size], data[size + 2 :]
        found.append((int(line.split()[1]), headers, body))
    return found


async def narrow(running: Running, taking: socket.socket) -> FastConnection:
    """The connection of ``taking``, once there is one, with little room in the kernel."""
    taking.setblocking(False)
    await eventually(lambda: len(listener_of(running).open) == 1)
    front = only_connection(running)
    sock = front.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return front


# --- who leaves ----------------------------------------------------------------------------


def nothing_is_left(running: Running) -> bool:
    gateway = running.gateway
    open_now = listener_of(running).open
    return gateway.connections.is_idle and not (open_now or gateway.scheduler.in_flight)
