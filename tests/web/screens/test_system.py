"""The screen System: what is wrong, memory over time, and the log of the gateway as it grows."""

from __future__ import annotations

import json
import re
import urllib.error
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from gateway import __version__
from gateway.tls import self_signed
from tests.harness import Served, project
from tests.web.axe import violations
from tests.web.visitors import Box, OpenPage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tiny_model: Path) -> dict[str, Any]:
    return {
        "tiny": {"params": {"model": str(tiny_model), "ctxSize": 8192, "threads": 1}},
        "gone": {"params": {"model": "nowhere.gguf"}},
    }


@pytest.fixture
def page(open_page: Any, box: Any) -> Page:
    page: Page = open_page("#/system", box.admin)
    page.locator(".log-line").first.wait_for()
    return page


def ask_in_vain(box: Any, name: str) -> None:
    """Leave a line in the log that has ``name`` in it."""
    with pytest.raises(urllib.error.HTTPError):
        box.ask("GET", f"/v1/models/{name}")


def test_system_screen_shows_the_machine(page: Page, box: Any) -> None:
    problem = page.locator(".system-problems li").filter(has_text="nowhere.gguf")
    expect(problem).to_contain_text("Error")
    expect(problem).to_contain_text("models.json, line 1, gone.params.model")
    about = page.get_by_role("region", name="About this box")
    expect(about).to_contain_text(f"{__version__}, with Python")
    expect(about).to_contain_text(box.url)
    version = box.ask("GET", "/admin/system")["llama_server"]["version"]
    assert version
    expect(about).to_contain_text(version)
    main = page.get_by_role("main")
    expect(main.get_by_role("meter", name="Memory of RAM")).to_be_visible()
    expect(page.get_by_text("None, and none needed")).to_be_visible()
    memory = page.get_by_role("figure").filter(has_text="Memory in use")
    expect(memory.locator("canvas")).to_be_visible()
    expect(
        memory.get_by_role("img", name=re.compile(r"RAM in use: .* GiB at last"))
    ).to_be_visible()
    memory.get_by_text("The same as a table").click()
    expect(memory.get_by_role("columnheader", name="RAM in use")).to_be_visible()
    expect(memory.get_by_role("row").nth(1)).to_contain_text("GiB")
    with page.expect_response(re.compile(r"/history\?range=7d")):
        page.get_by_label("How far back").select_option("7 days")
    expect(memory.locator("canvas")).to_be_visible()


@pytest.mark.parametrize(
    ("days_ago", "words"), [(0, r"^(89|90) days left$"), (85, r"[45] days left: time to renew it")]
)
def test_end_of_the_certificate_is_shown(
    browser: Browser, tmp_path: Path, days_ago: int, words: str
) -> None:
    begin = datetime.now(UTC) - timedelta(days=days_ago)
    made = self_signed(["box.example", "127.0.0.1"], tmp_path / "ssl", days=90, now=begin)
    files = {
        "enabled": True,
        "private_key": str(made.private_key),
        "certificate": str(made.certificate),
        "ca_chain": str(made.chain),
    }
    served = Served(tmp_path, "--config", str(project(tmp_path / "p", {}, tls=files)))
    open_page = OpenPage(browser, Box(served, served.key, ""))
    try:
        page = open_page(
            "#/system",
            served.key,
            ignore_https_errors=True,
            locale="en-US",
            timezone_id="UTC",
        )
        card = page.get_by_role("region", name="Certificate")
        expect(card).to_contain_text("Home-made: devices have to be told to trust it")
        expect(card).to_contain_text("box.example, 127.0.0.1")
        end = card.locator("dt", has_text="Expires").locator("xpath=following-sibling::dd")
        day = made.not_after
        expect(end).to_contain_text(f"{day:%b} {day.day}, {day.year}")
        expect(end.locator("span")).to_have_text(re.compile(words))
        expect(page.get_by_role("region", name="About this box")).to_contain_text("https://")
        assert violations(page) == []
        assert open_page.complaints == []
    finally:
        open_page.close()
        served.stop()


def test_broken_models_json_is_shown(page: Page, box: Any) -> None:
    file = box.served.root / "p/data/models.json"
    good = file.read_text()
    try:
        file.write_text('{\n "tiny": {,}}')
        page.get_by_text("models.json is broken in line 2").wait_for()
        assert violations(page) == []
    finally:
        file.write_text(good)
    expect(page.get_by_text("models.json is broken in line 2")).to_have_count(0, timeout=20_000)


def test_log_is_followed_as_it_grows(page: Page, box: Any) -> None:
    log = page.get_by_role("region", name="Lines of the log")
    ask_in_vain(box, "first-one")
    line = log.locator(".log-line")
    expect(line.filter(has_text="first-one")).to_be_visible()
    # What comes in a pause is counted, and shown when it goes on.
    page.get_by_role("button", name="Pause").click()
    ask_in_vain(box, "second-one")
    expect(page.get_by_text(re.compile(r"[1-9]\d* new since the pause"))).to_be_visible()
    assert line.filter(has_text="second-one").count() == 0
    page.get_by_role("button", name="Go on").click()
    expect(line.filter(has_text="second-one")).to_be_visible()
    page.get_by_placeholder("Search").fill("FIRST-ONE")
    expect(line).to_have_count(1)
    expect(line.locator("mark")).to_have_text("first-one")
    expect(page.get_by_text(re.compile(r"^1 of \d+ lines"))).to_be_visible()
    page.get_by_label("Level").select_option("Errors")
    expect(page.get_by_text("No line matches.")).to_be_visible()
    assert violations(page) == []


def test_many_lines_are_not_all_in_the_page(page: Page, box: Any) -> None:
    log = page.get_by_role("region", name="Lines of the log")
    for number in range(150):
        ask_in_vain(box, f"model-{number}")
    line = log.locator(".log-line")
    expect(line.filter(has_text="model-149 ")).to_be_visible()
    assert line.count() < 100
    assert int(re.sub(r"\D", "", page.locator(".log-foot").inner_text())) > 150
    # By keyboard, to the oldest and back; meanwhile nothing moves under who reads.
    log.focus()
    log.press("Home")
    expect(line.filter(has_text="gateway.server: listening on")).to_be_visible()
    ask_in_vain(box, "unseen")
    page.get_by_text("To the newest line").click()
    expect(line.filter(has_text="unseen")).to_be_visible()


def test_the_screen_fits_a_phone(open_page: Any, box: Any) -> None:
    page: Page = open_page("#/system", box.admin, viewport={"width": 360, "height": 740})
    page.locator(".log-line").first.wait_for()
    page.locator(".chart canvas").first.wait_for()
    assert page.get_by_label("Wrap lines").is_checked()
    wide = page.evaluate(
        """() => [...document.querySelectorAll("main *")]
            .filter(one => !one.closest(".table-frame"))
            .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
            .map(one => one.className)"""
    )
    assert wide == []
    # Rows are as many as was reckoned, so that no line lies over the next.
    over = page.evaluate(
        """() => {
          const boxes = [...document.querySelectorAll(".log-line")]
            .map(one => one.getBoundingClientRect()).sort((a, b) => a.top - b.top);
          return boxes.filter((one, at) => at && one.top < boxes[at - 1].bottom - 1).length;
        }"""
    )
    assert over == 0
    assert violations(page) == []


def test_silent_gateway_is_told(page: Page, box: Any) -> None:
    told = {"error": {"message": "the disk is on fire", "type": "x", "code": "x", "param": None}}
    page.route(
        "**/admin/system*",
        lambda route: route.fulfill(
            status=400,
            body=json.dumps(told),
            headers={"Content-Type": "application/json", "X-Request-Id": "req_1"},
        ),
    )
    page.evaluate("location.hash = '#/chat'")
    page.evaluate("location.hash = '#/system'")
    note = page.get_by_role("alert").filter(has_text="the disk is on fire").first
    expect(note).to_contain_text("req_1")
    page.unroute("**/admin/system*")
    note.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("region", name="About this box")).to_be_visible()
