"""A hub on this machine: its API as far as a pull needs it, with a place for every fault.

Files lead, as on the hub, to another host (here the other name of this machine) by a redirect.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest

from tests.tiny_model import write_tiny_model

COMMIT = "c0ffee" + 34 * "0"


@dataclass
class Repo:
    """``files``: by path. ``listed``: what the list of files says in place of the truth."""

    files: dict[str, bytes]
    gated: str | bool = False
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    small: tuple[str, ...] = ()  # in Git itself, with no SHA-256


@dataclass
class Asked:
    """One request for the bytes of a file, or another."""

    method: str
    path: str
    start: int
    token: str | None


class HubServer:
    """What it serves, what is wrong with it, and what it was asked."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[Asked] = []
        #: Answered to the next requests whose path has the text in it: status and headers.
        self.refusals: list[tuple[str, int, dict[str, str]]] = []
        #: How many bytes of a file go out before the connection breaks, one for each request.
        self.breaks: list[int] = []
        #: As many, and then nothing more until the client has gone.
        self.holds: list[int] = []
        self.ranges = True
        self.shift = 0  # bytes by which a range is wrong
        self.damage: Callable[[str, bytes], bytes] = lambda path, data: data
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        owner = self

        class Handler(_Handler):
            hub = owner

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """For a process that is to take this for the hub."""
        return {"HF_ENDPOINT": self.url, "NO_PROXY": "127.0.0.1,localhost"}

    def starts(self) -> list[int]:
        """Where each transfer of a file began."""
        with self.lock:
            return [one.start for one in self.asked if one.path.startswith("/cdn/")]

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        given = self.headers.get("Range", "")
        start = int(given.removeprefix("bytes=").partition("-")[0]) if given else 0
        with self.hub.lock:
            token = self.headers.get("Authorization")
            self.hub.asked.append(Asked(self.command, path, start, token))
            refusal = next((one for one in self.hub.refusals if one[0] in path), None)
            if refusal is not None:
                self.hub.refusals.remove(refusal)
        if refusal is not None:
            self._end(refusal[1], headers=refusal[2])
        elif path.startswith("/api/models/"):
            self._list(path.removeprefix("/api/models/"))
        elif path.startswith("/cdn/"):
            self._send(path.removeprefix("/cdn/"))
        else:
            self._lead(path.lstrip("/"))

    def _end(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, name: str) -> bool:
        repo = self.hub.repos.get(name)
        if repo is None:
            # The hub doesn't say whether there is one to who may not see it.
            self._end(401, headers={"X-Error-Code": "RepoNotFound"})
        return repo is None

    def _list(self, rest: str) -> None:
        name, _, revision = rest.partition("/revision/")
        if self._refuse(name):
            return
        if revision not in ("", "main", COMMIT):
            self._end(404, headers={"X-Error-Code": "RevisionNotFound"})
            return
        repo = self.hub.repos[name]
        siblings = [_sibling(path, data, repo) for path, data in repo.files.items()]
        told = {"id": name, "modelId": name, "sha": COMMIT, "gated": repo.gated}
        body = json.dumps({**told, "private": False, "tags": [], "siblings": siblings}).encode()
        self._end(200, body, {"Content-Type": "application/json"})

    def _lead(self, rest: str) -> None:
        name, _, file = rest.partition("/resolve/")
        commit, _, path = file.partition("/")
        if self._refuse(name):
            return
        repo = self.hub.repos[name]
        if repo.gated and self.headers.get("Authorization") != "Bearer hf_let_in":
            code = 403 if "Authorization" in self.headers else 401
            self._end(code, headers={"X-Error-Code": "GatedRepo"})
        elif commit != COMMIT or path not in repo.files:
            self._end(404, headers={"X-Error-Code": "EntryNotFound"})
        else:
            to = f"http://localhost:{self.hub.port}/cdn/{quote(name)}/resolve/{quote(path)}"
            self._end(302, headers={"Location": to})

    def _send(self, rest: str) -> None:
        name, _, path = rest.partition("/resolve/")
        data = self.hub.damage(path, self.hub.repos[name].files[path])
        given = self.headers.get("Range") if self.hub.ranges else None
        start, end = 0, len(data)
        if given is not None:
            first, _, last = given.removeprefix("bytes=").partition("-")
            start = int(first) + self.hub.shift
            end = min(int(last) + 1 if last else end, end)
            if start >= len(data):
                self._end(416, headers={"Content-Range": f"bytes */{len(data)}"})
                return
        self.send_response(206 if given is not None else 200)
        if given is not None:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        with self.hub.lock:
            stop = self.hub.breaks.pop(0) if self.hub.breaks else None
            hold = self.hub.holds.pop(0) if self.hub.holds else None
        until = min(end, start + min(one for one in (stop, hold, end) if one is not None))
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data[start:until])
            self.wfile.flush()
            if hold is not None and until == start + hold:
                self.connection.settimeout(30)
                self.connection.recv(1)  # it says nothing more, until it goes
        if until < end:
            self.close_connection = True


def _sibling(path: str, data: bytes, repo: Repo) -> dict[str, Any]:
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    told: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": blob}
    if path not in repo.small:
        sha256 = hashlib.sha256(data).hexdigest()
        told["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    return {**told, **repo.listed.get(path, {})}


@contextlib.contextmanager
def hub_server() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@contextlib.contextmanager
def tiny_hub(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that this test's processes find, with a tiny model in the repository ``name``."""
    file = folder / "hub.gguf"
    write_tiny_model(file)
    with hub_server() as server:
        server.repos[name] = Repo({"tiny-Q4_0.gguf": file.read_bytes()})
        for variable, value in server.environ.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
        yield server
