"""The screen "Activity": what ran."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.chromium import needs_chromium
from tests.web.screens.activity.rows import ended_rows, shown

pytestmark = needs_chromium


_PLACES = {"slot": "from a slot", "disk": "from disk"}
_PARTS = {"queue": "Queue", "load": "Load", "prefill": "Prompt", "generation": "Answer"}


def test_timings_are_drawn_as_a_bar(past: Any, open_page: Callable[..., Page]) -> None:
    page = open_page("#/activity", past.admin, viewport={"width": 1400, "height": 900})
    expect(ended_rows(page)).to_have_count(50)
    bars: dict[str, Any] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("tr[data-request]")].map(row => {
          const bar = row.querySelector(".timings");
          const parts = [...bar.children].map(one =>
            [one.className, one.getBoundingClientRect().width / bar.getBoundingClientRect().width]);
          return [row.dataset.request, {words: bar.getAttribute("aria-label"), parts}];
        }))"""
    )
    told = past.ask("GET", "/admin/requests?limit=100")["ended"]
    seen = [one for one in told if one["id"] in bars and one["id"].startswith("req_past")]
    assert len(seen) > 40
    assert any(all(one["timings"].values()) for one in seen)  # one has all four
    for one in seen:
        bar, timings = bars[one["id"]], {k: v for k, v in one["timings"].items() if v}
        assert [name for name, _ in bar["parts"]] == list(timings), one["id"]
        for name, share in bar["parts"]:
            # A part has two pixels at least, of about 140.
            assert share == pytest.approx(timings[name] / sum(timings.values()), abs=0.03)
        words = dict(re.findall(r"(\w+) ([\d.]+) s", bar["words"]))
        assert list(words) == [_PARTS[name] for name in timings]
        for name, seconds in timings.items():
            assert float(words[_PARTS[name]]) == pytest.approx(seconds, abs=0.051)


def test_a_row_opens_to_all_that_is_known(past: Any, open_page: Callable[..., Page]) -> None:
    page = open_page("#/activity", past.admin)
    expect(ended_rows(page)).to_have_count(50)
    ids = shown(page)
    told = past.ask("GET", "/admin/requests?limit=100")["ended"]
    one = next(o for o in told if o["id"] in ids and o["cached_tokens"] and o["status"] == 502)
    row = page.locator(f'tr[data-request="{one["id"]}"]')
    row.get_by_role("button", name="Show details").click()
    cached = f"{one['cached_tokens']:,} of {one['prompt_tokens']:,}"
    expect(row).to_contain_text(f"{one['cached_tokens']:,} {_PLACES[one['cached_from']]}")
    details = page.locator(f'tr[id="details-{one["id"]}"]')
    for name, value in (
        ("Request", one["id"]),
        ("Client address", one["client"]),
        ("Prompt tokens", f"{cached} {_PLACES[one['cached_from']]}"),
        ("Answer tokens", f"{one['completion_tokens']:,}"),
        ("Error code", "backend_error"),
    ):
        term = details.locator("dt").get_by_text(name, exact=True)
        expect(term.locator("xpath=following-sibling::dd[1]")).to_contain_text(value)
    row.get_by_role("button", name="Hide details").click()
    expect(details).to_have_count(0)


def test_requests_are_searched_by_where_their_prompts_were(
    past: Any, open_page: Callable[..., Page]
) -> None:
    page = open_page("#/activity", past.admin, viewport={"width": 1400, "height": 900})
    for words, place in (("Disk", "disk"), ("A slot", "slot")):
        page.get_by_label("Prompt from").select_option(words)
        told = past.ask("GET", f"/admin/requests?cached_from={place}")["ended"]
        assert {one["cached_from"] for one in told} == {place}
        expect(ended_rows(page)).to_have_count(len(told))
        expect(ended_rows(page).filter(has_text=_PLACES[place])).to_have_count(len(told))


def test_search_that_matches_nothing_says_so(past: Any, open_page: Callable[..., Page]) -> None:
    page = open_page("#/activity", past.admin)
    expect(ended_rows(page)).to_have_count(50)
    page.get_by_label("Duration").select_option("120")
    expect(page.get_by_text("No request matches")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(ended_rows(page)).to_have_count(50)
