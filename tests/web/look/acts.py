"""What a person does on the page, on the way to a state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Page

from tests.web.look.camera import Visit
from tests.web.visitors import Box


@contextlib.contextmanager
def at(visit: Visit, box: Box, path: str, key: str | None = None) -> Iterator[Page]:
    """Signed in at a screen, by the link of a first start."""
    with visit.open(f"{box.url}/#key={key or box.admin}") as page:
        page.locator("#main").wait_for()
        go(page, path)
        yield page


def go(page: Page, path: str) -> None:
    """Go to a screen, as by a link."""
    page.evaluate("path => { location.hash = path }", path)


def choose(page: Page, model: str) -> None:
    """Choose the model that is asked."""
    page.get_by_role("button", name="Model:").click()
    page.get_by_role("listbox", name="Model").get_by_role("option", name=model).click()
    page.get_by_role("button", name=f"Model: {model}").wait_for()


def ask(page: Page, text: str) -> None:
    """Send a question."""
    page.get_by_role("textbox", name="Message").fill(text)
    page.get_by_role("button", name="Send").click()


def answered(page: Page, count: int) -> None:
    """Wait until there are so many answers, and nobody writes."""
    page.get_by_role("article", name="Answer").nth(count - 1).wait_for()
    page.get_by_role("button", name="Send").wait_for()


def to_top(page: Page) -> None:
    """Scroll a conversation to its beginning."""
    page.locator(".thread").evaluate("element => element.scrollTo(0, 0)")


def more(page: Page, item: str) -> None:
    """Choose from the menu that a phone has in place of buttons over the chat."""
    page.get_by_role("button", name="Conversations and settings").click()
    page.get_by_role("menuitem", name=item).click()


def show_list(page: Page, *, phone: bool) -> None:
    """Show the conversations, if they aren't shown."""
    search = page.get_by_role("searchbox", name="Search conversations")
    if phone:
        more(page, "Conversations")
    else:
        show = page.get_by_role("button", name="Show conversations")
        search.or_(show).first.wait_for()
        if not search.is_visible():
            show.first.click()
    search.wait_for()


def import_file(page: Page, file: bytes, *, phone: bool) -> None:
    """Take an export in."""
    show_list(page, phone=phone)
    page.get_by_role("button", name="Export, import, delete all").click()
    page.get_by_role("menuitem", name="Import…").click()
    content: Any = {"name": "export.json", "mimeType": "application/json", "buffer": file}
    page.get_by_label("Files to import").set_input_files(files=[content])
    page.get_by_role("button", name="Done").click()
    page.locator(".conversation").first.wait_for()
