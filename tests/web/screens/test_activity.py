"""The screens "Activity" and "Usage": what runs, cancelling it, what ran, and who used what."""

from __future__ import annotations

import contextlib
import csv
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, timedelta
from datetime import datetime as moment
from pathlib import Path
from typing import Any

import pytest
from axe import violations
from chromium import needs_chromium
from harness import wait_until
from openai import OpenAI
from playwright.sync_api import Locator, Page, expect

pytestmark = needs_chromium
PAST = 200
#: Model, and the result, of every tenth one that has ended.
_RESULTS = {0: (499, None), 3: (400, "context_length_exceeded"), 7: (502, "backend_error")}


@pytest.fixture(scope="module")
def models(tiny_model: Path) -> dict[str, Any]:
    held = {"setParams": {"temperature": 0, "grammar": "root ::= [a-z ] root"}}
    params = {"model": str(tiny_model), "ctxSize": 32768, "nPredict": 16000, "threads": 1}
    other = {"params": {**params, "ctxSize": 512}}
    return {"endless": {"params": params, **held, "parallel": 2}, "tiny": other}


@pytest.fixture(scope="module")
def past(box: Any) -> Any:
    """The gateway with 200 requests of the last hours, and usage of 30 days, in its store."""
    keys = {key["name"]: key["id"] for key in box.ask("GET", "/admin/keys")["keys"]}
    file = box.served.root / "p/data/gateway.db"
    chance = random.Random(7)
    now = time.time()
    with contextlib.closing(sqlite3.connect(file, timeout=20)) as store, store:
        store.executemany(
            f"INSERT INTO requests VALUES ({', '.join('?' * 20)})",
            [_request(number, now, keys, chance) for number in range(PAST)],
        )
        store.executemany(
            "INSERT OR REPLACE INTO usage VALUES (?, ?, ?, ?, ?, ?)", _usage(keys, chance)
        )
    return box


def _request(
    number: int, now: float, keys: dict[str, str], chance: random.Random
) -> tuple[object, ...]:
    status, code = _RESULTS.get(number % 10, (200, None))
    model = "tiny" if number % 4 == 0 else "endless"
    load = 3.2 if number % 25 == 0 else 0.0
    queue = chance.choice((0.0, 0.0, 0.4, 2.5))
    prefill, answer = chance.uniform(0.05, 0.8), chance.uniform(0.3, 9)
    tokens = int(answer * 42)
    return (
        int((now - 60 - number * 97) * 1e6),
        f"req_past{number:04}",
        keys["plain"] if number % 3 else "k_0gone000",
        model,
        None,
        "POST",
        "/v1/chat/completions",
        number % 5 != 0,
        status,
        code,
        f"192.168.1.{20 + number % 4}",
        queue + load + prefill + answer,
        queue,
        load,
        prefill,
        answer,
        chance.randint(40, 6000),
        chance.randint(0, 30),
        tokens,
        42.0,
    )


def _usage(keys: dict[str, str], chance: random.Random) -> Iterator[tuple[object, ...]]:
    today = moment.now(UTC).date()
    for back in range(1, 30):
        for key in keys.values():
            for model in ("endless", "tiny"):
                requests = chance.randint(0, 40)
                if requests:
                    day: date = today - timedelta(days=back)
                    yield (key, model, day, requests, requests * 800, requests * 210)


@contextlib.contextmanager
def streaming(box: Any) -> Iterator[list[str]]:
    """A long answer that somebody reads; what comes of an error of it."""
    said: list[str] = []
    begun = threading.Event()
    client = OpenAI(base_url=f"{box.url}/v1", api_key=box.plain, max_retries=0)

    def read() -> None:
        try:
            for _ in client.chat.completions.create(
                model="endless", messages=[{"role": "user", "content": "private"}], stream=True
            ):
                begun.set()
        except Exception as error:
            said.append(str(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert begun.wait(60)
    try:
        yield said
    finally:
        client.close()
        reader.join(20)
        assert not reader.is_alive()


def under_way(box: Any) -> list[Any]:
    return list(box.ask("GET", "/admin/requests?limit=1")["under_way"])


def ended_rows(page: Page) -> Locator:
    return page.get_by_role("region", name="Ended").locator("tbody tr[data-request]")


def test_cancel_a_long_stream(past: Any, open_page: Callable[..., Page]) -> None:
    page = open_page("#/activity", past.admin)
    expect(page.get_by_text("Nothing runs now.")).to_be_visible()
    with streaming(past) as said:
        table = page.get_by_role("region", name="Running now")
        expect(table.get_by_role("row")).to_have_count(2)
        expect(table).to_contain_text("writing")
        expect(table).to_contain_text("plain")
        table.get_by_role("button", name="Cancel the request of plain to endless").click()
        dialog = page.get_by_role("dialog", name="Cancel this request?")
        dialog.get_by_role("button", name="Cancel request").click()
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


def test_filters_and_older_ones(past: Any, open_page: Callable[..., Page]) -> None:
    page = open_page("#/activity", past.admin)
    rows = ended_rows(page)
    expect(rows).to_have_count(50)
    page.get_by_role("button", name="Show older").click()
    expect(rows).to_have_count(100)
    assert len({row.get_attribute("data-request") for row in rows.all()}) == 100
    page.get_by_label("Result").select_option("5xx")
    expect(rows).to_have_count(PAST // 10)
    expect(rows.first).to_contain_text("failed (502)")
    page.get_by_label("Model").select_option("tiny")
    page.get_by_label("Result").select_option("4xx")
    expect(rows.filter(has_text="endless")).to_have_count(0)
    page.get_by_label("Key", exact=True).select_option(label="plain")
    expect(rows.filter(has_text="k_0gone000")).to_have_count(0)
    page.get_by_label("Duration").select_option("120")
    expect(page.get_by_text("No request matches")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(rows).to_have_count(50)


def test_usage_of_all_and_as_csv(past: Any, open_page: Callable[..., Page], tmp_path: Path) -> None:
    page = open_page("#/usage", past.admin)
    told = past.ask("GET", "/admin/usage?days=30&by=model")["usage"]
    table = page.get_by_role("region", name="Totals by model")
    for one in told:
        row = table.get_by_role("row").filter(has_text=one["model"])
        expect(row).to_contain_text(f"{one['prompt_tokens'] + one['completion_tokens']:,}")
    expect(page.get_by_role("img", name="Tokens per day of the last 30 days")).to_be_visible()
    page.get_by_text("Key", exact=True).click()
    expect(page.get_by_role("region", name="Totals by key")).to_contain_text("plain")
    page.get_by_text("7 days", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    saved = tmp_path / "usage.csv"
    download.value.save_as(saved)
    rows = [*csv.DictReader(saved.read_text().splitlines())]
    assert rows
    assert {row["name"] for row in rows} <= {"plain", "first key", *_names(past)}
    week = moment.now(UTC).date() - timedelta(days=6)
    assert min(row["day"] for row in rows) >= week.isoformat()


def _names(box: Any) -> list[str]:
    return [key["name"] for key in box.ask("GET", "/admin/keys")["keys"]]


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
def test_axe(
    past: Any, open_page: Callable[..., Page], screen: str, ready: Callable[[Page], None]
) -> None:
    page = open_page(f"#/{screen}", past.admin)
    with streaming(past) if screen == "activity" else contextlib.nullcontext():
        ready(page)
        assert violations(page, "#main") == []
