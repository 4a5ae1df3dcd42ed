"""Trying to come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Browser, Page


@dataclass
class Ports:
    """Where the page is hosted besides, always on loopback."""

    #: Plain, in the same network as the gateways as far as the browser is told.
    home: int
    #: Plain and over TLS, on the internet as far as the browser is told.
    public: int
    secure: int


@dataclass
class World:
    ports: Ports
    browser: Browser

    @property
    def home(self) -> str:
        return f"http://127.0.0.1:{self.ports.home}"

    @property
    def public(self) -> str:
        return f"http://my.pages.example:{self.ports.public}"

    @property
    def secure(self) -> str:
        return f"https://my-app.web.app:{self.ports.secure}"


def attempt(page: Page, address: str | None = None, key: str = "", name: str = "") -> None:
    if address is not None:
        page.get_by_label("Address of the box").fill(address)
    if name:
        page.get_by_label("Name for it").fill(name)
    if key:
        page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def said(page: Page, title: str) -> Any:
    """The diagnosis with that title, once it is there."""
    note = page.get_by_role("alert").filter(has=page.get_by_role("heading", name=title))
    note.wait_for()
    return note


def inside(page: Page) -> None:
    page.get_by_role("navigation", name="Screens").wait_for()
