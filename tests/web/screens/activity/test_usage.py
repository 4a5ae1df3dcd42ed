"""The screen "Usage": who used what."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Callable
from datetime import UTC, timedelta
from datetime import datetime as moment
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.chromium import needs_chromium
from tests.web.axe import violations
from tests.web.screens.activity.rows import ended_rows, streaming

pytestmark = needs_chromium


def test_usage_of_all_is_drawn(past: Any, open_page: Callable[..., Page]) -> None:
    page = open_page("#/usage", past.admin)
    told = past.ask("GET", "/admin/usage?days=30&by=model")["usage"]
    table = page.get_by_role("region", name="Totals by model")
    for one in told:
        row = table.get_by_role("row").filter(has_text=one["model"])
        expect(row).to_contain_text(f"{one['prompt_tokens'] + one['completion_tokens']:,}")
    chart = page.get_by_role("img", name="Tokens per day of the last 30 days, by model")
    expect(chart).to_contain_text("tokens per day")
    expect(chart).to_contain_text("day (UTC)")
    for one in past.ask("GET", "/admin/usage?days=30&by=day,model")["usage"]:
        tokens = one["prompt_tokens"] + one["completion_tokens"]
        if tokens:
            bar = f"{one['day']}, {one['model']}: {tokens:,}"
            expect(chart.locator("title").filter(has_text=bar)).to_have_count(1)
    page.get_by_text("Requests", exact=True).first.click()
    chart = page.get_by_role("img", name="Requests per day of the last 30 days, by model")
    expect(chart).to_contain_text("requests per day")
    page.get_by_text("Key", exact=True).click()
    expect(page.get_by_role("region", name="Totals by key")).to_contain_text("plain")


def test_the_csv_is_what_the_table_behind_the_chart_shows(
    past: Any, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    page = open_page("#/usage", past.admin)
    page.get_by_text("7 days", exact=True).click()
    expect(page.get_by_role("img", name="Tokens per day of the last 7 days")).to_be_visible()
    page.get_by_text("The same as a table").click()
    table = page.get_by_role("region", name="Usage by day")
    expect(table.get_by_role("columnheader")).to_have_text(
        [re.compile("Day"), "Key", "Model", "Requests", "Prompt tokens", "Answer tokens", "Cached"]
    )
    cells = [
        [cell.replace(",", "") for cell in row.locator("td").all_inner_texts()]
        for row in table.locator("tbody tr").all()
    ]
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    saved = tmp_path / "usage.csv"
    download.value.save_as(saved)
    head, *rows = csv.reader(saved.read_text().splitlines())
    assert head == ["day", "key", "name", *head[3:]]
    assert head[3:] == ["model", "requests", "prompt_tokens", "completion_tokens", "cached_tokens"]
    assert sorted(cells) == sorted([day, *row] for day, _, *row in rows)
    week = moment.now(UTC).date() - timedelta(days=6)
    assert min(day for day, *_ in rows) >= week.isoformat()


def test_a_plain_key_sees_its_own_usage_only(past: Any, open_page: Callable[..., Page]) -> None:
    limits = {"tpd": 5000, "rpm": 60}
    fields = {"name": "limited", "limits": limits, "models": ["tiny"]}
    key = past.ask("POST", "/admin/keys", fields)["key"]
    page = open_page("#/usage", key)
    expect(page.get_by_role("heading", name="Your key: limited")).to_be_visible()
    expect(page.get_by_text("5,000 of 5,000 left")).to_be_visible()
    expect(page.get_by_text("Nothing was used in this time")).to_be_visible()
    assert violations(page, "#main") == []
    past.ask(
        "POST",
        "/v1/chat/completions",
        {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]},
        key,
    )
    page.get_by_text("90 days", exact=True).click()
    table = page.get_by_role("region", name="Totals by model")
    expect(table).to_contain_text("tiny")
    expect(table).not_to_contain_text("endless")
    expect(page.get_by_text("5,000 of 5,000 left")).to_have_count(0)


def _activity(page: Page) -> None:
    expect(ended_rows(page)).to_have_count(50)
    ended_rows(page).nth(3).get_by_role("button", name="Show details").click()


def _usage_of_30_days(page: Page) -> None:
    expect(page.get_by_role("region", name="Totals by model")).to_be_visible()


@pytest.mark.parametrize(
    ("screen", "ready"), [("activity", _activity), ("usage", _usage_of_30_days)]
)
def test_axe_finds_nothing(
    past: Any, open_page: Callable[..., Page], screen: str, ready: Callable[[Page], None]
) -> None:
    page = open_page(f"#/{screen}", past.admin)
    with streaming(past) if screen == "activity" else contextlib.nullcontext():
        ready(page)
        assert violations(page, "#main") == []
