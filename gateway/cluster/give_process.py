"""The process that gives files of this machine to another one, so that reading, hashing and
encrypting many gigabytes disturbs no stream.

A job comes on stdin, as JSON; a line on stdout has the port. ``GET /N`` answers file N of the job,
from any byte on, and ``GET /N/sha256`` its hash; no path comes over the network. It ends with
whoever has started it, or when nobody has asked for a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Final

from gateway.cluster.ca import Credentials, server_context
from gateway.cluster.hashes import Hashes, mark_of
from gateway.secret import Secret

#: Seconds for which the other end may neither send nor take anything.
_PATIENCE: Final = 60.0
_HANDSHAKE: Final = 10.0
#: Seconds between two signs of life while a file is hashed.
_OFTEN: Final = 1.0
_BLOCK: Final = 2**20
#: Connections at once: a machine that fetches needs one, and a second for the next hash.
_MOST: Final = 32
_RANGE: Final = re.compile(r"bytes=(\d{1,20})-")


@dataclass(frozen=True, slots=True)
class GiveJob:
    """What is given, where, and to whom. ``files``: paths; ``hashes``: see :class:`Hashes`.

    ``idle``: seconds without a connection after which it ends.
    """

    host: str
    key: str
    certificate: str
    private_key: str
    authorities: str
    files: list[str]
    hashes: str | None = None
    idle: float = 120.0

    @property
    def credentials(self) -> Credentials:
        """What it shows, and whom it trusts."""
        return Credentials(
            self.certificate.encode(),
            Secret(self.private_key),
            self.authorities.encode(),
            datetime.max.replace(tzinfo=UTC),
        )


def main() -> None:
    """Do the job."""
    with contextlib.suppress(OSError):  # killed before processes with models
        Path("/proc/self/oom_score_adj").write_text("500")
    os.nice(5)
    job = GiveJob(**json.load(sys.stdin))
    try:
        server = GiveServer(job)
    except (OSError, ValueError) as error:
        print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201  # who has asked reads it
        return
    threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True).start()
    print(json.dumps({"port": server.server_address[1]}), flush=True)  # noqa: T201
    server.until_idle()


def as_text(job: GiveJob) -> bytes:
    """Return ``job`` in the form that :func:`main` reads."""
    return json.dumps(asdict(job)).encode()


class GiveServer(ThreadingHTTPServer):
    """The server of one job. Raises ``OSError`` where it can't listen."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, job: GiveJob) -> None:
        self.files = [Path(file) for file in job.files]
        self.hashes = Hashes(Path(job.hashes) if job.hashes is not None else None)
        self.authorization = f"Bearer {job.key}".encode()
        self._idle = job.idle
        self._context = server_context(job.credentials)
        self._places = threading.BoundedSemaphore(_MOST)
        self._open = 0
        self._last = time.monotonic()
        self._news = threading.Condition()
        self.address_family = socket.AF_INET6 if ":" in job.host else socket.AF_INET
        super().__init__((job.host, 0), _Handler)

    def server_bind(self) -> None:
        """Bind; the name of the address, which the base class looks up, is of no use here."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def until_idle(self) -> None:
        """Return when there has been no connection for as long as the job says."""
        with self._news:
            while (left := self._last + self._idle - time.monotonic()) > 0 or self._open:
                self._news.wait(max(left, 0.05) if not self._open else None)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, in a thread of its own."""
        if not self._places.acquire(blocking=False):
            return
        self._count(1)
        try:
            request.settimeout(_HANDSHAKE)
            with (
                contextlib.suppress(OSError),  # ssl.SSLError is one; so is a client that left
                self._context.wrap_socket(request, server_side=True) as secured,
            ):
                secured.settimeout(_PATIENCE)
                _Handler(secured, client_address, self)
        finally:
            self._count(-1)
            self._places.release()

    def _count(self, change: int) -> None:
        with self._news:
            self._open += change
            self._last = time.monotonic()
            self._news.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GiveServer

    def do_GET(self) -> None:
        sent = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if not secrets.compare_digest(sent, self.server.authorization):
            self._refuse(401)
            return
        match = re.fullmatch(r"/(\d{1,5})(/sha256)?", self.path)
        if match is None or int(match[1]) >= len(self.server.files):
            self._refuse(404)
            return
        path = self.server.files[int(match[1])]
        try:
            if match[2]:
                self._tell_hash(path)
            else:
                with path.open("rb", buffering=0) as stream:
                    self._send_file(stream)
        except FileNotFoundError:
            self._refuse(404)
        except OSError:  # the disk, or the network: what was promised doesn't come
            self.close_connection = True

    def _tell_hash(self, path: Path) -> None:
        """Answer mark and hash in the last line; the lines before say that it goes on."""
        path.stat()  # raises, before the head is sent
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        said = time.monotonic()

        def told(done: int) -> None:
            nonlocal said
            if (now := time.monotonic()) - said >= _OFTEN:
                said = now
                self.wfile.write(b"%d\n" % done)

        mark, sha256 = self.server.hashes.of(path, told)
        self.wfile.write(f"{mark} {sha256}\n".encode())
        self.close_connection = True

    def _send_file(self, stream: IO[bytes]) -> None:
        mark = mark_of(stream)
        size = os.fstat(stream.fileno()).st_size
        wanted = self.headers.get("If-Match")
        if wanted is not None and wanted != f'"{mark}"':
            self._refuse(412)  # another file is there by now (RFC 9110, 13.1.1)
            return
        part = _RANGE.fullmatch(self.headers.get("Range", "bytes=0-"))
        start = int(part[1]) if part is not None else 0
        if start > size:
            self._refuse(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(size - start))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("ETag", f'"{mark}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        stream.seek(start)
        left = size - start
        block = memoryview(bytearray(_BLOCK))
        while left and (count := stream.readinto(block[: min(left, _BLOCK)])):  # type: ignore[attr-defined]
            self.wfile.write(block[:count])
            left -= count
        if left:  # it has been cut meanwhile
            self.close_connection = True

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # its name there
        """Log nothing: who fetches says how it goes."""


if __name__ == "__main__":
    main()
