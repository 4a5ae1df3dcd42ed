"""Bodies that take as long as possible to look through, and how long others wait meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_HEAD = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "metadata": '


def _filled(size: int, piece: bytes, before: bytes, after: bytes) -> bytes:
    times = (size - len(_HEAD) - len(before) - len(after) - 1) // len(piece)
    return b"".join((_HEAD, before, piece * times, after, b"}"))


def _listed(size: int, piece: bytes) -> bytes:
    return _filled(size, piece + b",", b"[", piece + b"]")


def _text(size: int, piece: bytes) -> bytes:
    return _filled(size, piece, b'"', b'"')


#: What fills a body of so many bytes.
KINDS: dict[str, Callable[[int], bytes]] = {
    "lists": lambda size: _listed(size, b"[]"),
    "objects": lambda size: _listed(size, b'{"":0}'),
    "numbers": lambda size: _listed(size, b"1"),
    "long numbers": lambda size: _listed(size, b"1" * 400),
    "long fractions": lambda size: _listed(size, b"0." + b"3" * 400),
    "texts": lambda size: _listed(size, b'""'),
    "one text": lambda size: _text(size, b"x"),
    "escapes": lambda size: _text(size, b"\\n"),
    "code points": lambda size: _text(size, b"\\ud83d\\ude00"),
    "emoji": lambda size: _text(size, "\U0001f600".encode()),
    "commas in a text": lambda size: _text(size, b"[],"),
    "nothing": lambda size: _filled(size, b"null,", b"[", b"null]"),
    "depth": lambda size: _filled(size, b"[", b"", b""),
    "a colon as an escape": lambda size: _filled(size, b"x", b'"\\u003a', b'"'),
    "one number": lambda size: _filled(size, b"1", b"", b""),
    "messages": lambda size: _messages(size),
}


def _messages(size: int) -> bytes:
    one = b'{"role": "user", "content": [{"type": "text", "text": null}]}'
    times = size // (len(one) + 1) - 1
    return b'{"model": "m", "messages": [%b]}' % b",".join([one] * times)


class Prober(threading.Thread):
    """Asks for /health again and again; :attr:`longest` is the longest that it waited, in s."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection(host, port, timeout=60)
        self._over = threading.Event()
        self.longest = 0.0
        self.asked = 0

    def run(self) -> None:
        while not self._over.wait(0.005):
            started = time.perf_counter()
            self._connection.request("GET", "/health")
            answer = self._connection.getresponse()
            answer.read()
            assert answer.status == 200
            self.longest = max(self.longest, time.perf_counter() - started)
            self.asked += 1
        self._connection.close()

    def end(self) -> None:
        self._over.set()
        self.join(60)


@contextlib.contextmanager
def probed(url: str) -> Iterator[Prober]:
    """Ask for /health meanwhile."""
    host, _, port = url.partition("://")[2].rpartition(":")
    prober = Prober(host, int(port))
    prober.start()
    try:
        yield prober
    finally:
        prober.end()


def post(url: str, key: str, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    """Status and body of the answer."""
    host, _, port = url.partition("://")[2].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=120)
    try:
        said: dict[str, Any] = {"Authorization": f"Bearer {key}", **headers}
        connection.request("POST", path, body, {"Content-Type": "application/json", **said})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
