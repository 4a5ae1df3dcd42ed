"""A gateway that serves the page, and somebody who opens it there."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

from tests.chromium import PATIENCE
from tests.harness import Served


@dataclass
class Box:
    """A gateway that serves the page, with a key of each kind."""

    served: Served
    admin: str
    plain: str

    @property
    def url(self) -> str:
        return self.served.url

    def ask(self, method: str, path: str, body: object = None, key: str | None = None) -> Any:
        """What a route answers, parsed; with the admin key if no other is given."""
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {key or self.admin}",
                "Content-Type": "application/json",
            },
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None


class OpenPage:
    """See :func:`open_page`."""

    def __init__(self, browser: Browser, box: Box) -> None:
        self._browser = browser
        self._box = box
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []

    def __call__(self, path: str = "#/chat", key: str | None = None, **options: Any) -> Page:
        context = self._browser.new_context(**options)
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.complaints.append(f"{error.name}: {error.message}"))
        page.on("console", self._console)
        if key is None:
            page.goto(f"{self._box.url}/{path}")
            return page
        page.goto(f"{self._box.url}/#key={key}")
        page.get_by_role("main").wait_for()
        if path != "#/chat":
            page.evaluate("path => { location.hash = path }", path)
        return page

    def _console(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            self.complaints.append(message.text)

    def close(self) -> None:
        for context in self._contexts:
            context.close()
