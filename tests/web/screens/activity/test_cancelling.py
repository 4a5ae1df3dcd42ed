"""The screen "Activity": what runs, and cancelling it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.chromium import needs_chromium
from tests.harness import wait_until
from tests.web.screens.activity.rows import PAST, ended_rows, shown, streaming

pytestmark = needs_chromium


def running_rows(page: Page) -> Locator:
    return page.get_by_role("region", name="Running now").locator("tbody tr[data-request]")


def test_long_stream_is_cancelled(past: Any, open_page: Callable[..., Page]) -> None:
    page = open_page("#/activity", past.admin)
    expect(page.get_by_text("Nothing runs now.")).to_be_visible()
    with streaming(past) as said:
        table = page.get_by_role("region", name="Running now")
        expect(table.get_by_role("row")).to_have_count(2)
        expect(table).to_contain_text("writing")
        expect(table).to_contain_text("plain")
        for column, number in (("Tokens", r"^[1-9][\d,]*$"), ("Duration", r"^\d+(\.\d)? (s|min)$")):
            at = table.get_by_role("columnheader").all_inner_texts().index(column)
            expect(table.locator("tbody td:visible").nth(at)).to_have_text(re.compile(number))
        cancel(page, table.get_by_role("row").filter(has_text="endless"))
        expect(page.get_by_text("Request cancelled.")).to_be_visible()
        expect(page.get_by_text("Nothing runs now.")).to_be_visible()
        wait_until(lambda: bool(said), 20, "its client is told")
        assert "cancelled by an administrator" in said[0]

    def free() -> bool:
        return not any(one["is_processing"] for one in past.ask("GET", "/slots?model=endless"))

    wait_until(free, 20, "its slot is free")
    first = ended_rows(page).first  # it came by itself
    expect(first).to_contain_text("cancelled")
    first.get_by_role("button", name="Show details").click()
    details = page.locator("tr.details")
    expect(details).to_contain_text("req_")
    expect(details).to_contain_text("Answer")
    assert "private" not in page.content()


def cancel(page: Page, row: Locator) -> None:
    row.get_by_role("button", name="Cancel the request of").click()
    dialog = page.get_by_role("dialog", name="Cancel this request?")
    # "Cancel" alone would not say which of the two it is.
    expect(dialog.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)
    dialog.get_by_role("button", name="Cancel request").click()
    expect(dialog).to_have_count(0)


def test_queued_and_remote_requests_are_cancelled(
    past: Any, elsewhere: tuple[str, threading.Event], open_page: Callable[..., Page]
) -> None:
    page = open_page("#/activity", past.admin)
    rows = running_rows(page)
    with (
        streaming(past) as first,
        streaming(past) as second,
        streaming(past, waits=True) as queued,
        streaming(past, "far") as far,
    ):
        expect(rows).to_have_count(4)
        row = rows.filter(has_text="waiting, position 1")
        row.get_by_role("button", name="Cancel the request of").click()
        page.get_by_role("button", name="Keep it running").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(rows).to_have_count(4)
        cancel(page, row)
        expect(rows).to_have_count(3)
        wait_until(lambda: bool(queued), 20, "the client that waited is told")
        assert "cancelled by an administrator" in queued[0]
        cancel(page, rows.filter(has_text="far"))
        expect(rows).to_have_count(2)
        assert elsewhere[1].wait(20)  # the other server need not go on
        wait_until(lambda: bool(far), 20, "the client of the other server's model is told")
        assert "cancelled by an administrator" in far[0]
        expect(ended_rows(page).nth(0)).to_contain_text("cancelled")
        expect(ended_rows(page).nth(1)).to_contain_text("cancelled")
        expect(rows.filter(has_text="writing")).to_have_count(2)
        assert first == second == []


def ended(box: Any, query: str) -> list[str]:
    """The ids that the gateway tells of."""
    return [one["id"] for one in box.ask("GET", f"/admin/requests?limit=50&{query}")["ended"]]


def shows_what_matches(page: Page, past: Any, query: str) -> bool:
    return shown(page) == ended(past, query) != []


def shows_more(page: Page, than: int, older: Locator) -> bool:
    return len(shown(page)) > than or older.count() == 0


def test_running_and_ended_requests_are_listed(past: Any, open_page: Callable[..., Page]) -> None:
    page = open_page("#/activity", past.admin)
    plain = next(
        key["id"] for key in past.ask("GET", "/admin/keys")["keys"] if "plain" in key["name"]
    )
    with streaming(past), streaming(past), streaming(past, waits=True):
        expect(running_rows(page)).to_have_count(3)
        expect(ended_rows(page)).to_have_count(50)
        for label, choice, query, running in (
            ("Duration", {"value": "5"}, "slow=5", 3),
            ("Result", {"value": "5xx"}, "status=5xx", 3),
            ("Result", {"value": "4xx"}, "status=4xx", 3),
            ("Model", {"value": "tiny"}, "model=tiny", 0),
            ("Key", {"label": "plain"}, f"key={plain}", 3),
        ):
            page.get_by_label(label, exact=True).select_option(
                value=choice.get("value"), label=choice.get("label")
            )
            wait_until(partial(shows_what_matches, page, past, query), 30, query)
            expect(running_rows(page)).to_have_count(running)
            page.get_by_label(label, exact=True).select_option("")
        expect(ended_rows(page)).to_have_count(50)
        # The rest comes by pages, until there is no more, and each is there once.
        older = page.get_by_role("button", name="Show older")
        while older.count() > 0:
            before = len(shown(page))
            older.click()
            # Of exactly four pages it is known only behind the last that there is no fifth.
            wait_until(
                partial(shows_more, page, before, older),
                30,
                "older ones, or the end",
            )
        rows = shown(page)
        assert len(rows) == len(set(rows)) >= PAST
        assert {f"req_past{number:04}" for number in range(PAST)} <= set(rows)
        expect(
            page.get_by_text("requests are kept for 30 d, the newest 200,000 at")
        ).to_be_visible()
        # And what runs is at hand all the same.
        cancel(page, running_rows(page).filter(has_text="waiting"))
        expect(running_rows(page)).to_have_count(2)
