"""Fixtures of the tests in this folder."""

from __future__ import annotations

import contextlib
import http.server
import json
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chromium import serving
from tests.web.screens.activity.rows import PAST, request_of, usage_of
from tests.web.upstream import delta


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[tuple[str, threading.Event]]:
    """The address of a server that never ends an answer, and whether its client hung up."""
    left, over = threading.Event(), threading.Event()
    event = json.dumps(delta(content="word "))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = json.dumps({"object": "list", "data": [{"id": "far", "object": "model"}]})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(found)))
            self.end_headers()
            self.wfile.write(found.encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                while not over.wait(0.05):
                    self.wfile.write(f"data: {event}\n\n".encode())
            except OSError:
                left.set()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}", left
        over.set()


@pytest.fixture(scope="module")
def models(tiny_model: Path, elsewhere: tuple[str, threading.Event]) -> dict[str, Any]:
    held = {"setParams": {"temperature": 0, "grammar": "root ::= [a-z ] root"}}
    params = {"model": str(tiny_model), "ctxSize": 32768, "nPredict": 16000, "threads": 1}
    other = {"params": {**params, "ctxSize": 512}}
    return {
        "endless": {"params": params, **held, "parallel": 2},
        "tiny": other,
        "far": {"url": elsewhere[0]},
    }


@pytest.fixture(scope="module")
def past(box: Any) -> Any:
    """The gateway with 200 requests of the last hours, and usage of 30 days, in its store."""
    keys = {key["name"]: key["id"] for key in box.ask("GET", "/admin/keys")["keys"]}
    file = box.served.root / "p/data/gateway.db"
    chance = random.Random(7)
    now = time.time()
    with contextlib.closing(sqlite3.connect(file, timeout=20)) as store, store:
        store.executemany(
            f"INSERT INTO requests VALUES ({', '.join('?' * 23)})",
            [request_of(number, now, keys, chance) for number in range(PAST)],
        )
        store.executemany(
            "INSERT OR REPLACE INTO usage VALUES (?, ?, ?, ?, ?, ?, ?)", usage_of(keys, chance)
        )
    return box
