"""A server elsewhere that says what a test wrote down; and a line to a gateway that can be cut.

In threads, as the tests of the page have no loop of their own.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Upstream:
    """Streams events of ``says``: by the last question, what is sent for it, or waited for."""

    says: dict[str, list[dict[str, Any] | threading.Event]] = field(default_factory=dict)
    #: The bodies that came, oldest first.
    asked: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, question: str, *deltas: dict[str, Any] | str | threading.Event) -> None:
        """Answer ``question`` by these; a text is content, an Event is waited for."""
        self.says[question] = [
            delta(content=one) if isinstance(one, str) else one for one in deltas
        ]


def delta(**fields: Any) -> dict[str, Any]:
    """An event with such a delta."""
    choice = {"index": 0, "delta": fields, "finish_reason": None}
    return {"object": "chat.completion.chunk", "choices": [choice]}


_PATIENCE = 120  # seconds, in which a test says that it may go on
_END: dict[str, Any] = {
    "object": "chat.completion.chunk",
    "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
}


@contextlib.contextmanager
def upstream() -> Iterator[Upstream]:
    """One that listens on loopback."""
    told = Upstream()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._json({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.asked.append(body)
            content = body["messages"][-1]["content"]
            question = content if isinstance(content, str) else content[0]["text"]
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for event in [*told.says[question], _END]:
                if isinstance(event, threading.Event):
                    event.wait(_PATIENCE)
                    continue
                self._event(json.dumps(event))
                if "error" in event:
                    return  # and no end: it broke
            self._event("[DONE]")

        def _event(self, data: str) -> None:
            self.wfile.write(f"data: {data}\n\n".encode())

        def _json(self, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        told.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


class Line:
    """Leads connections to a port of this machine, and can be cut."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.port: int = self._server.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._server.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._to))
                with self._lock:
                    self._open |= {near, far}
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        self._end(source, target)

    @staticmethod
    def _end(*ended: socket.socket) -> None:
        for one in ended:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # which wakes who reads from it
            one.close()

    def cut(self) -> None:
        """End every connection there is, as when a phone leaves its network."""
        with self._lock:
            ended, self._open = self._open, set()
        self._end(*ended)

    def close(self) -> None:
        """Take no more, and wait until nobody uses it."""
        self._end(self._server)
        self._accepting.join()
        self.cut()
