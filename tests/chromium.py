"""Chromium, headless, by way of playwright; and web pages with origins of their own, on loopback.

Nothing here intercepts a request: playwright would then answer preflights itself.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next((found for name in _NAMES if (found := shutil.which(name))), None)
CERTUTIL = shutil.which("certutil")
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="no chromium: apt-get install chromium")
needs_certutil = pytest.mark.skipif(
    CERTUTIL is None,
    reason="no certutil, with which Chromium is told what to trust: apt-get install libnss3-tools",
)
#: Milliseconds that anything in a page may take on a busy machine.
PATIENCE = 60_000


@contextlib.contextmanager
def chromium(home: Path, *arguments: str) -> Iterator[Browser]:
    """A browser with a home folder of its own; every name of the public DNS leads to loopback."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=PROGRAM,
            args=["--no-sandbox", "--host-resolver-rules=MAP * 127.0.0.1", *arguments],
            env={**os.environ, "HOME": str(home)},
            timeout=PATIENCE,
        )
        yield browser
        browser.close()


def trust(home: Path, authority: Path) -> None:
    """Make Chromium with that home folder trust a certificate authority (PEM), as a user would."""
    database = home / ".pki/nssdb"
    database.mkdir(parents=True)
    for arguments in (
        ["-N", "--empty-password"],
        ["-A", "-n", "local authority", "-t", "C,,", "-i", str(authority)],
    ):
        subprocess.run(["certutil", "-d", f"sql:{database}", *arguments], check=True, timeout=60)


class _EmptyPage(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>page</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: Callable[..., Any], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A web server on a port of its own, with TLS if there is a ``context``."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        if context is not None:
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def web_server(
    context: ssl.SSLContext | None = None,
) -> contextlib.AbstractContextManager[int]:
    """An empty page under every address of this port."""
    return serving(_EmptyPage, context)
