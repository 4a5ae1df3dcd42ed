"""What tests of the screen Models share: how they find their way on it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Locator, Page, expect

if TYPE_CHECKING:
    from tests.web.visitors import Box


def tiny(**more: Any) -> dict[str, Any]:
    """An entry for ``tiny.gguf`` below llm_storage."""
    return {"params": {"model": "tiny.gguf", "ctxSize": 512, "threads": 1}, **more}


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name, exact=True)


def at(page: Page, *rest: str) -> None:
    """Go to a place of the screen: the list, or a model, or a tab of a model."""
    page.evaluate("path => { location.hash = path }", "/".join(("#/models", *rest)))


def button(page: Page | Locator, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def settings_of(page: Page, name: str) -> Locator:
    """The form of an entry, once it is there."""
    at(page, name, "settings")
    form = page.get_by_role("form", name=f"Settings of {name}")
    expect(form).to_be_visible()
    return form


def unfold(form: Locator, *groups: str) -> None:
    for group in groups:
        form.locator("summary", has_text=group).click()


def control(form: Locator, label: str) -> Locator:
    """What is written into, by its label without the unit."""
    return form.get_by_label(re.compile(rf"^{re.escape(label)}( \(.*)?$"))


def field(form: Locator, label: str) -> Locator:
    """A field with its hint and its problems."""
    title = form.page.locator(
        ".schema-title", has_text=re.compile(rf"^{re.escape(label)}( \(.*)?$")
    )
    return form.locator(".schema-field", has=title)


def save(form: Locator, box: Box, name: str) -> Any:
    """Save the form; what the entry then is."""
    button(form, "Save").click()
    expect(form.page.get_by_text(f"{name} is saved").first).to_be_attached()
    expect(form.get_by_text("No change yet.")).to_be_visible()
    return box.ask("GET", f"/admin/models/{name}")
