"""Entries of models elsewhere, and what their server is asked and sees."""

from __future__ import annotations

from typing import Any

from tests.remote_server import RemoteServer

CHAT = "/v1/chat/completions"
USER: Any = {"role": "user", "content": "hi"}
SECRET = "sk-very-secret"


def entry(*servers: RemoteServer | str, **more: Any) -> dict[str, Any]:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return {"url": urls, "key": SECRET, "modelName": "there", **more}
