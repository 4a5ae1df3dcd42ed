"""One request as bytes, the manner in which it is sent, and what came back.

A request is kept as data alone, so that a finding can be written to a file and sent again. Keys are
not in it but their roles (``@chat@``), which are filled in at the last moment.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: Seconds until a client leaves that has got no whole answer.
PATIENCE: Final = 4.0
#: Bytes of an answer that are kept; and read at all.
_KEPT, _READ = 20_000, 4_000_000
_ROLE: Final = re.compile(rb"@(\w+)@")


@dataclass(frozen=True)
class Manner:
    """How a client behaves. Times in seconds.

    It sends in so many ``pieces``, with a ``pause`` between two, of all but the last if it is not
    ``whole``; ``half_close``: it says that it sends no more; ``leave_after``: it hangs up when so
    many bytes of the answer came (0: before any).
    """

    pieces: int = 1
    pause: float = 0.0
    whole: bool = True
    half_close: bool = False
    leave_after: int | None = None


@dataclass(frozen=True)
class Request:
    """What is sent through which ``door`` (``plain``, ``tls``; ``tls-raw``: its TCP, no TLS)."""

    kind: str
    door: str
    head: bytes
    body: bytes = b""
    manner: Manner = field(default=Manner())

    def __repr__(self) -> str:  # hypothesis would print a body of 57 MB
        return f"<{self.kind} {self.head[:60]!r} + {len(self.body)}>"

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "door": self.door,
            "head": self.head.decode("latin-1"),
            "body_base64": base64.b64encode(self.body).decode(),
            "body_beginning": self.body[:400].decode("latin-1"),
            "manner": vars(self.manner),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        body = base64.b64decode(data["body_base64"])
        head = data["head"].encode("latin-1")
        return cls(data["kind"], data["door"], head, body, Manner(**data["manner"]))


@dataclass(frozen=True)
class Target:
    """A running gateway's two doors: ports of 127.0.0.1, and the keys by their roles."""

    plain: int
    tls: int
    authority: str  # a PEM file
    keys: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """``status`` is 0 where nothing came, -1 where it was no HTTP; ``end`` says how it ended."""

    status: int
    body: bytes
    seconds: float
    end: str

    @property
    def code(self) -> str:
        """The code of an error, in whatever dialect; "" where there is none."""
        found = re.search(rb'"code"\s*:\s*"([a-z_]+)"', self.body)
        return found[1].decode() if found else ""


class Sender:
    """Sends requests, each on a connection of its own."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._context = ssl.create_default_context(cafile=target.authority)

    def _filled(self, head: bytes) -> bytes:
        keys = self._target.keys
        return _ROLE.sub(lambda m: keys.get(m[1].decode(), m[0].decode()).encode(), head)

    def _connect(self, door: str) -> socket.socket:
        port = self._target.plain if door == "plain" else self._target.tls
        connected = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if door != "tls":
            return connected
        return self._context.wrap_socket(connected, server_hostname="127.0.0.1")

    def send(self, request: Request) -> Answer:
        began = time.monotonic()
        with self._connect(request.door) as connected:
            end = _send(connected, self._filled(request.head) + request.body, request.manner)
            data, read_end = _read(connected, request.manner, began + PATIENCE)
        status, body = _parsed(data)
        return Answer(status, body, time.monotonic() - began, end or read_end)


def _send(connected: socket.socket, data: bytes, manner: Manner) -> str:
    size = max(1, -(-len(data) // manner.pieces))
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    if not manner.whole:
        pieces = pieces[:-1]
    try:
        for number, piece in enumerate(pieces):
            if number and manner.pause:
                time.sleep(manner.pause)
            connected.sendall(piece)
        if manner.half_close and not isinstance(connected, ssl.SSLSocket):
            connected.shutdown(socket.SHUT_WR)
    except OSError as error:  # the gateway answered and closed before it had read all
        return f"{type(error).__name__} while sending"
    return ""


def _read(connected: socket.socket, manner: Manner, deadline: float) -> tuple[bytes, str]:
    data = bytearray()
    wanted = _READ if manner.leave_after is None else manner.leave_after
    while len(data) < wanted:
        left = deadline - time.monotonic()
        if left <= 0:
            return bytes(data), "left: no whole answer in time"
        connected.settimeout(left)
        try:
            got = connected.recv(65536)
        except TimeoutError:
            return bytes(data), "left: no whole answer in time"
        except OSError as error:
            return bytes(data), type(error).__name__
        if not got:
            return bytes(data), "closed"
        data += got
        if _complete(bytes(data[:_KEPT]), len(data)):
            return bytes(data), "complete"
    return bytes(data), "left as planned"


def _complete(beginning: bytes, size: int) -> bool:
    head, separator, _ = beginning.partition(b"\r\n\r\n")
    if not separator or head.startswith(b"HTTP/1.1 1"):
        return False
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    if length:
        return size >= len(head) + 4 + int(length[1])
    return False  # by chunks: we ask for Connection: close, mostly


def _parsed(data: bytes) -> tuple[int, bytes]:
    if not data:
        return 0, b""
    while data.startswith(b"HTTP/1.1 100"):
        data = data.partition(b"\r\n\r\n")[2]
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", data)
    if not found:
        return (-1 if data else 0), data[:_KEPT]
    return int(found[1]), data.partition(b"\r\n\r\n")[2][:_KEPT] + data[_KEPT:][-_KEPT:]


def written(request: Request) -> str:
    """It as the text of a file."""
    return json.dumps(request.to_json(), indent=1)
