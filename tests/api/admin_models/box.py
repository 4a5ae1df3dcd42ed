"""A gateway whose models.json is edited over HTTP."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from yarl import URL

from tests.harness import Running

TEXT = """{
    "first": {"params": {"model": "a.gguf",   "topK": 4}, "aliases": ["uno"]},

    "second": {
        "params": {"model": "b.gguf"},
        "personalities": {
            "pirate": "Arr."
        }
    }
}
"""


class Box:
    """A gateway, and the models.json that it serves."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.file = running.gateway.settings.models_file

    def write(self, text: str) -> None:
        self.file.write_text(text)

    @property
    def entries(self) -> dict[str, Any]:
        entries: dict[str, Any] = json.loads(self.file.read_bytes())
        return entries

    async def ask(
        self, method: str, name: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, str | None]:
        """Status, body and ETag."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        url = URL(f"{self.running.url}/admin/models/{quote(name, safe='')}", encoded=True)
        named["Authorization"] = f"Bearer {self.running.key}"
        async with self.running.session.request(method, url, json=body, headers=named) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None, answer.headers.get("ETag")

    async def editable(self) -> dict[str, Any]:
        """What is told of models.json as a file."""
        _, answer = await self.running.json("GET", "/admin/models")
        found: dict[str, Any] = answer["models_file"]
        assert found["path"] == str(self.file)
        return found

    async def refused(self, method: str, name: str, body: Any, **headers: str) -> tuple[int, Any]:
        """Status and error, when nothing has been written."""
        before = self.file.read_bytes() if self.file.is_file() else None
        status, answer, _ = await self.ask(method, name, body, **headers)
        assert before == (self.file.read_bytes() if self.file.is_file() else None)
        return status, answer["error"]

    @property
    def known(self) -> list[str]:
        return [one.name for one in self.running.gateway.scheduler.status()]


LOCAL = {"params": {"model": "a.gguf"}}
