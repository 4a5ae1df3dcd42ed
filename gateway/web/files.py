"""The built page (``dist``), read at the first request and then kept in memory. Blocks.

Next to a file are its compressed forms, made when the page was built: ``app.js.br``, ``.zst`` and
``.gz``. They are the same file in another coding (RFC 9110, 8.4), each with an ETag of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

DIST = Path(__file__).with_name("dist")
PAGE = "index.html"
DOCS = "docs.html"
#: Content coding -> file extension, the smallest result first.
_CODINGS: Final = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
#: Content types by extension. The system's table isn't used: in some, scripts are plain text, which
#: browsers refuse.
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_OTHERS: Final = "application/octet-stream"
#: The tag that tells the page that a gateway serves it, so that the API has its own origin.
_SERVED: Final = b'<meta name="llm-gateway" content="served" />'
_HEAD: Final = re.compile(rb"<head[^>]*>", re.IGNORECASE)


class Body(NamedTuple):
    """A body as it is sent. ``coding``: its Content-Encoding, or ``None``."""

    content: bytes
    coding: str | None
    etag: str


@dataclass(frozen=True, slots=True)
class File:
    """A file: its Content-Type, and its bytes in every coding there is; ``None``: uncompressed."""

    kind: str
    bodies: Mapping[str | None, Body]

    def body(self, accept_encoding: str) -> Body:
        """Return the smallest body that a client with this Accept-Encoding takes (RFC 9110,
        12.5.3).
        """
        accepted = _accepted(accept_encoding)
        for coding in _CODINGS:
            if coding in self.bodies and accepted.get(coding, accepted.get("*", False)):
                return self.bodies[coding]
        return self.bodies[None]


class Files:
    """The files by their paths below ``/``, as they were when the page was last asked for."""

    def __init__(self, dist: Path = DIST) -> None:
        self._dist = dist
        self._lock = threading.Lock()  # one thread reads, and the others wait for it
        self._stamp: object = None
        self._paths: frozenset[str] | None = None
        self._read: dict[str, File] = {}

    def kept(self, path: str) -> File | None:
        """Return a file that was read already. Does not block."""
        return self._read.get(path)

    def may_have(self, path: str) -> bool:
        """Return whether looking for the file is worth a thread. Does not block."""
        return self._paths is None or path in self._paths

    def page(self) -> File | None:
        """Return the page itself; ``None`` if it was never built.

        The folder is checked each time, as the gateway may have been upgraded while it runs. While
        the page is being built, the previous one is returned.
        """
        with self._lock:
            return self._page()

    def file(self, path: str) -> File | None:
        """Return any other file. ``path`` is looked up among the known files, never on the disk."""
        with self._lock:
            if self._paths is None:
                self._page()
            if (found := self._read.get(path)) is None and self.may_have(path):
                try:
                    read = _page_in if path.endswith(".html") else _file
                    found = self._read[path] = read(self._dist / path)
                except OSError:  # there is no page, or it was built again
                    return None
            return found

    def _page(self) -> File | None:
        try:
            status = (self._dist / PAGE).stat()
            if (stamp := (status.st_mtime_ns, status.st_ino, status.st_size)) != self._stamp:
                page = _page_in(self._dist / PAGE)
                self._paths = frozenset(_paths(self._dist))
                self._read = {PAGE: page}
                self._stamp = stamp
        except OSError:
            if self._paths is None:
                self._paths = frozenset()
        return self._read.get(PAGE)


def is_built(dist: Path = DIST) -> bool:
    """Return whether there is a page to serve."""
    return (dist / PAGE).is_file()


def _paths(dist: Path) -> Iterator[str]:
    endings = tuple(_CODINGS.values())
    for file in dist.rglob("*"):
        hidden = file.name.startswith(".") or file.name.endswith(endings)
        if not hidden and file.name != PAGE and file.is_file():
            yield file.relative_to(dist).as_posix()


def _page_in(file: Path) -> File:
    """Return a page as a gateway serves it: it was compressed as static hosting does."""
    content = _HEAD.sub(lambda found: found[0] + _SERVED, file.read_bytes(), count=1)
    bodies = {None: _body(content, None), "gzip": _body(gzip.compress(content, mtime=0), "gzip")}
    return File(_TYPES[".html"], bodies)


def _file(file: Path) -> File:
    bodies: dict[str | None, Body] = {None: _body(file.read_bytes(), None)}
    for coding, ending in _CODINGS.items():
        packed = file.with_name(file.name + ending)
        if packed.is_file():
            bodies[coding] = _body(packed.read_bytes(), coding)
    return File(_TYPES.get(file.suffix, _OTHERS), bodies)


def _body(content: bytes, coding: str | None) -> Body:
    return Body(content, coding, hashlib.sha256(content).hexdigest()[:32])


def _accepted(accept_encoding: str) -> dict[str, bool]:
    """Return codings, and whether each is accepted: one of quality 0 is not."""
    found: dict[str, bool] = {}
    for part in accept_encoding.lower().split(","):
        coding, _, parameters = part.partition(";")
        quality = parameters.replace(" ", "").removeprefix("q=")
        found[coding.strip()] = re.fullmatch(r"0(\.0{0,3})?", quality) is None
    return found
