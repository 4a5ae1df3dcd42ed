"""The page hosted elsewhere: its built files, served by anything that serves files."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import ssl
from typing import Any

from tests.chromium import serving
from tests.web.built import WEB


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def hosted(
    context: ssl.SSLContext | None = None,
) -> contextlib.AbstractContextManager[int]:
    """gateway/web/dist on a port of its own; nothing of it tells of a gateway."""
    return serving(functools.partial(_Files, directory=str(WEB / "dist")), context)


def answering(
    answers: dict[str, tuple[int, object]],
) -> contextlib.AbstractContextManager[int]:
    """A server that lets every page in, and answers what ``answers`` has for a path (or "*").

    With a status and a body: JSON, or HTML if it is text. ``answers`` may change meanwhile.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, answers["*"])
            kind = "text/html" if isinstance(body, str) else "application/json"
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self._head(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_OPTIONS(self) -> None:
            self._head(204)
            self.send_header("Access-Control-Allow-Headers", "authorization")
            self.end_headers()

        def _head(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Access-Control-Allow-Origin", "*")

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return serving(Handler)
