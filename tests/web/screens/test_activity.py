"""The screens "Activity" and "Usage": what runs, cancelling it, what ran, and who used what."""

from __future__ import annotations

import contextlib
import csv
import http.server
import json
import random
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, timedelta
from datetime import datetime as moment
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from playwright.sync_api import Locator, Page, expect

from tests.chromium import needs_chromium, serving
from tests.harness import wait_until
from tests.web.axe import violations
from tests.web.upstream import delta

pytestmark = needs_chromium
PAST = 200
#: Model, and the result, of every tenth one that has ended.
_RESULTS = {0: (499, None), 3: (400, "context_length_exceeded"), 7: (502, "backend_error")}


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[tuple[str, threading.Event]]:
    """The address of a server that never ends an answer, and whether its client hung up."""
    left, over = threading.Event(), threading.Event()
    event = json.dumps(delta(content="word "))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = json.dumps({"object": "list", "data": [{"id": "far", "object": "model"}]})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(found)))
            self.end_headers()
            self.wfile.write(found.encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                while not over.wait(0.05):
                    self.wfile.write(f"data: {event}\n\n".encode())
            except OSError:
                left.set()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}", left
        over.set()


@pytest.fixture(scope="module")
def models(tiny_model: Path, elsewhere: tuple[str, threading.Event]) -> dict[str, Any]:
    held = {"setParams": {"temperature": 0, "grammar": "root ::= [a-z ] root"}}
    params = {"model": str(tiny_model), "ctxSize": 32768, "nPredict": 16000, "threads": 1}
    other = {"params": {**params, "ctxSize": 512}}
    return {
        "endless": {"params": params, **held, "parallel": 2},
        "tiny": other,
        "far": {"url": elsewhere[0]},
    }


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
def streaming(box: Any, model: str = "endless", *, waits: bool = False) -> Iterator[list[str]]:
    """A long answer that somebody reads; what comes of an error of it.

    ``waits``: nothing of it comes, for want of a slot.
    """
    said: list[str] = []
    begun = threading.Event()
    before = {one["id"] for one in under_way(box)}
    client = OpenAI(base_url=f"{box.url}/v1", api_key=box.plain, max_retries=0)

    def read() -> None:
        try:
            for _ in client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "private"}], stream=True
            ):
                begun.set()
        except Exception as error:
            said.append(str(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    if waits:
        new = partial(wait_until, seconds=60, what="it waits in the queue")
        new(lambda: {"queued"} == {o["stage"] for o in under_way(box) if o["id"] not in before})
    else:
        assert begun.wait(60)
    try:
        yield said
    finally:
        client.close()
        reader.join(20)
        assert not reader.is_alive()


def under_way(box: Any) -> list[Any]:
    return list(box.ask("GET", "/admin/requests?limit=1")["under_way"])


def running_rows(page: Page) -> Locator:
    return page.get_by_role("region", name="Running now").locator("tbody tr[data-request]")


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


def test_cancel_one_that_is_queued_and_one_elsewhere(
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


_PARTS = {"queue": "Queue", "load": "Load", "prefill": "Prompt", "generation": "Answer"}


def test_timings_as_a_bar(past: Any, open_page: Callable[..., Page]) -> None:
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
    details = page.locator(f'tr[id="details-{one["id"]}"]')
    for name, value in (
        ("Request", one["id"]),
        ("Client address", one["client"]),
        ("Prompt tokens", f"{one['prompt_tokens']:,}, {one['cached_tokens']} of them cached"),
        ("Answer tokens", f"{one['completion_tokens']:,}"),
        ("Error code", "backend_error"),
    ):
        term = details.locator("dt").get_by_text(name, exact=True)
        expect(term.locator("xpath=following-sibling::dd[1]")).to_contain_text(value)
    row.get_by_role("button", name="Hide details").click()
    expect(details).to_have_count(0)


def shown(page: Page) -> list[str]:
    """The ids of what has ended, as they stand there at this moment."""
    ids: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("[aria-label=Ended] tr[data-request]")]
            .map(row => row.dataset.request)"""
    )
    return ids


def ended(box: Any, query: str) -> list[str]:
    """The ids that the gateway tells of."""
    return [one["id"] for one in box.ask("GET", f"/admin/requests?limit=50&{query}")["ended"]]


def test_three_run_and_200_have_ended(past: Any, open_page: Callable[..., Page]) -> None:
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
            page.get_by_label(label, exact=True).select_option(**choice)
            wait_until(lambda query=query: shown(page) == ended(past, query) != [], 30, query)
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
                lambda before=before: len(shown(page)) > before or older.count() == 0,
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


def test_no_request_matches(past: Any, open_page: Callable[..., Page]) -> None:
    page = open_page("#/activity", past.admin)
    expect(ended_rows(page)).to_have_count(50)
    page.get_by_label("Duration").select_option("120")
    expect(page.get_by_text("No request matches")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(ended_rows(page)).to_have_count(50)


def test_usage_of_all(past: Any, open_page: Callable[..., Page]) -> None:
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
        [re.compile("Day"), "Key", "Model", "Requests", "Prompt tokens", "Answer tokens"]
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
    assert head[3:] == ["model", "requests", "prompt_tokens", "completion_tokens"]
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
def test_axe(
    past: Any, open_page: Callable[..., Page], screen: str, ready: Callable[[Page], None]
) -> None:
    page = open_page(f"#/{screen}", past.admin)
    with streaming(past) if screen == "activity" else contextlib.nullcontext():
        ready(page)
        assert violations(page, "#main") == []
