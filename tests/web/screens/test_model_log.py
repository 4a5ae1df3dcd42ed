"""The log of a model as it comes: more lines than a page could hold, against the gateway."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, expect

from tests.chromium import PATIENCE
from tests.harness import FAKE, wait_until
from tests.web.model_cards import at, button

if TYPE_CHECKING:
    from pathlib import Path

    from tests.web.visitors import Box, OpenPage

pytestmark = pytest.mark.slow

expect.set_options(timeout=PATIENCE)
MODEL = "talkative"
#: Of a start: fewer than the gateway keeps for a reader who is slow.
LINES = 900
KEPT = 10_000


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {"llama_server": str(FAKE)}


@pytest.fixture(scope="module")
def models(tiny_model: Path) -> dict[str, Any]:
    said = "\n".join(f"line {number} of many" for number in range(LINES))
    return {MODEL: {"params": {"model": str(tiny_model)}, "env": {"FAKE_SAYS": said}}}


def counted(page: Page) -> int:
    """How many lines the page says that it has."""
    text = page.locator(".log-foot").inner_text()
    return int(re.split(r" lines| of ", text)[-2 if " of " not in text else 1].replace(",", ""))


def start_again(box: Box) -> None:
    box.ask("POST", "/loadModel", {"model": MODEL})
    box.ask("POST", f"/unloadModel?model={MODEL}")


def shows_lines(page: Page, least: int) -> bool:
    return counted(page) >= least


@pytest.mark.timeout(600)  # a start for each 900 of them
def test_log_of_ten_thousand_lines_draws_what_is_in_sight(open_page: OpenPage, box: Box) -> None:
    page = open_page("#/models", key=box.admin)
    at(page, MODEL, "log")
    log = page.get_by_role("region", name=f"Log of {MODEL}")
    expect(log).to_contain_text("its llama-server has not been started")
    starts = KEPT // LINES + 2
    for start in range(1, starts + 1):
        start_again(box)
        least = min(start * LINES, KEPT)
        wait_until(partial(shows_lines, page, least), 60, f"{least} lines")
    assert counted(page) == KEPT
    # Of which hardly more are in the page than are in sight; it stands at the newest.
    rows = page.locator(".log-line")
    assert 10 < rows.count() < 150
    expect(rows.last).to_be_in_viewport()

    search = page.get_by_role("searchbox", name="Search")
    search.fill(f"START {starts - 3} OF")
    expect(rows).to_have_count(1)
    expect(rows.locator("mark")).to_have_text(f"start {starts - 3} of")
    expect(page.locator(".log-foot")).to_contain_text("1 of 10,000 lines")
    search.fill("no line has this")
    expect(log).to_contain_text("No line matches.")
    search.fill("")

    # What comes while it is paused waits; what is read stays where it is.
    button(page, "Pause").click()
    newest = rows.last.inner_text()
    start_again(box)
    waiting = page.locator(".log-foot strong")
    expect(waiting).to_have_text(re.compile(r"9\d\d new since the pause"))
    assert rows.last.inner_text() == newest
    search.fill(f"start {starts + 1} of")
    expect(log).to_contain_text("No line matches.")
    button(page, "Go on").click()
    expect(rows.locator("mark")).to_have_text(f"start {starts + 1} of")
    search.fill("")
    expect(waiting).to_have_count(0)

    # Who reads further up is left alone, and comes back with one click.
    log.focus()
    page.keyboard.press("Home")
    expect(button(page, "To the newest line")).to_be_visible()
    first = rows.first.inner_text()
    start_again(box)
    search.fill(f"start {starts + 2} of")
    expect(rows).to_have_count(1)
    search.fill("")
    assert first
    button(page, "To the newest line").click()
    expect(rows.last).to_be_in_viewport()
