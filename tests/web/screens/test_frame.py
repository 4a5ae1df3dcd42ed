"""The frame around the screens: by keyboard, on a phone, and when the gateway goes away."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.chromium import PATIENCE
from tests.harness import Served, project
from tests.web import axe
from tests.web.built import ensure_built
from tests.web.visitors import Box, OpenPage

pytestmark = pytest.mark.slow

expect.set_options(timeout=PATIENCE)
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}


@pytest.fixture(scope="module")
def models(tiny_model: Path) -> dict[str, Any]:
    params = {"model": str(tiny_model), "ctxSize": 2048, "threads": 1}
    return {"tiny": {"params": params, "preload": True}}


def screens(page: Page) -> Any:
    return page.get_by_role("navigation", name="Screens")


def test_the_keyboard_reaches_everything(admin_page: Page) -> None:
    page = admin_page
    before = page.url
    page.get_by_role("button", name="Skip to the screen").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    assert page.url == before
    page.locator(".box-name").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    menu = page.get_by_role("group", name="Boxes")
    expect(menu.get_by_role("button").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(page.locator(".box-name")).to_be_focused()
    for _ in ("Go to", "Chat", "Models"):
        page.keyboard.press("Tab")
    expect(screens(page).get_by_role("link", name="Models")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_title("Models · 127.0.0.1")
    expect(page.locator("#main")).to_be_focused()
    expect(page.get_by_role("meter").first).to_have_accessible_name(re.compile("^Memory of "))


def test_drawer_of_a_phone_opens_and_closes(open_page: OpenPage, box: Box) -> None:
    page = open_page("#/models", box.admin, **PHONE)
    menu = page.get_by_role("dialog", name="Menu")
    opener = page.get_by_role("button", name="Open the menu")
    expect(page.get_by_role("link", name="tiny loaded")).to_be_visible()
    ways: list[Callable[[], Any]] = [
        lambda: page.keyboard.press("Escape"),
        lambda: page.go_back(),
        lambda: page.mouse.click(350, 400),
    ]
    for close in ways:
        opener.click()
        expect(menu.get_by_role("link", name="Models")).to_be_focused()
        for _ in range(15):  # round and round, and never behind it
            page.keyboard.press("Tab")
            inside = "() => document.activeElement?.closest('.content') === null"
            assert page.evaluate(inside)
        assert axe.violations(page) == []
        close()
        expect(menu).to_be_hidden()
        assert page.url.endswith("#/models")
    opener.click()
    menu.get_by_role("link", name="System").click()
    expect(menu).to_be_hidden()
    expect(page).to_have_title("System · 127.0.0.1")
    page.go_back()  # one step, not a step for the drawer too
    expect(page).to_have_title("Models · 127.0.0.1")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 360


def test_a_screen_that_comes_late_takes_no_other_ones_place(open_page: OpenPage, box: Box) -> None:
    page = open_page("nowhere", service_workers="block")
    late: list[Route] = []
    page.route("**/assets/Chat-*.js", lambda route: late.append(route))
    page.goto(f"{box.url}/#key={box.admin}")
    screens(page).get_by_role("link", name="Models").click()
    models = page.get_by_role("heading", name="Models", level=1)
    models.wait_for()
    (script,) = {route.request.url for route in late}
    for route in late:
        route.continue_()
    page.evaluate("script => import(script).then(() => null)", script)  # when it has come
    page.evaluate("() => new Promise(resolve => requestIdleCallback(() => resolve(null)))")
    expect(models).to_be_visible()
    expect(page.get_by_role("textbox", name="Message")).to_have_count(0)


def test_key_revoked_under_a_dialog_is_told(open_page: OpenPage, box: Box) -> None:
    made = box.ask("POST", "/admin/keys", {"name": "for a while"})
    page = open_page(key=made["key"])
    screens(page).wait_for()
    page.keyboard.press("Control+k")
    typed = page.get_by_role("dialog", name="Go to").get_by_role("combobox")
    typed.fill("tin")
    box.ask("DELETE", f"/admin/keys/{made['id']}")
    page.get_by_text("Your key no longer opens this box.").wait_for()
    page.get_by_label("API key").click()  # nothing behind bars the way
    page.keyboard.type(box.plain)
    page.keyboard.press("Enter")
    expect(typed).to_be_visible()
    expect(typed).to_have_value("tin")
    page.keyboard.press("Escape")
    expect(typed).to_have_count(0)
    screens(page).get_by_role("link", name="Chat").click()


def test_theme_is_light_or_dark_as_chosen(admin_page: Page) -> None:
    page = admin_page
    shown = "() => getComputedStyle(document.documentElement).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(shown)
    page.get_by_label("Theme").select_option("Dark")
    dark = page.evaluate(shown)
    assert dark != light
    page.reload()
    screens(page).wait_for()
    assert page.evaluate(shown) == dark
    page.get_by_label("Theme").select_option("Same as system")
    assert page.evaluate(shown) == light


def test_nothing_moves_for_who_wants_it_so(open_page: OpenPage, box: Box) -> None:
    moving = """() => document.getAnimations({subtree: true}).filter(({playState, effect}) =>
      playState === "running" && effect.getComputedTiming().endTime === Infinity).length"""
    for motion, moves in (("no-preference", True), ("reduce", False)):
        page = open_page("nowhere", reduced_motion=motion)
        page.route("**/v1/chat/completions", lambda route: None)  # is waited for in vain
        page.goto(f"{box.url}/#key={box.plain}")
        page.get_by_role("textbox", name="Message").fill("Are you there?")
        page.keyboard.press("Enter")
        page.locator(".waiting").wait_for()
        assert (page.evaluate(moving) > 0) is moves


def test_nothing_vanishes_in_forced_colours(open_page: OpenPage, box: Box) -> None:
    """Windows' high contrast replaces backgrounds: what is told by one needs a border too."""
    page = open_page(key=box.admin, forced_colors="active")
    meter = page.get_by_role("meter").first
    part = meter.locator("div")
    style = "element => getComputedStyle(element).backgroundColor"
    assert part.evaluate(style) != meter.evaluate(style)


@pytest.fixture
def start(tmp_path: Path, models: dict[str, Any]) -> Iterator[Callable[[], Served]]:
    """Starts a gateway: the same one each time, at the same address."""
    ensure_built()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    config = str(project(tmp_path / "p", models))
    started: list[Served] = []

    def start() -> Served:
        started.append(Served(tmp_path, "--config", config, "--port", port))
        assert started[-1].url.endswith(port)
        return started[-1]

    yield start
    for served in started:
        served.stop()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Page]:
    """Somebody who has no page open yet."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    yield page
    context.close()


def test_the_gateway_goes_away_and_comes_back(start: Callable[[], Served], visitor: Page) -> None:
    page, served = visitor, start()
    page.goto(f"{served.url}/#key={served.key}")
    screens(page).wait_for()
    served.stop()
    note = page.get_by_role("status").filter(has_text="Connection lost.")
    expect(note).to_contain_text(re.compile(r"Trying again in \d+ s"))
    assert axe.violations(page) == []
    # As if a newer page had been installed meanwhile.
    page.evaluate("() => document.querySelector('script[src]').src = '/assets/index-old.js'")
    with page.expect_event("requestfailed"):
        page.get_by_role("button", name="Try now").click()
    start()
    expect(note).to_be_hidden()
    page.get_by_role("button", name="Load it").click()
    screens(page).wait_for()
    expect(page.get_by_text("new version")).to_be_hidden()


def test_a_question_that_reached_nobody_is_asked_again(
    start: Callable[[], Served], visitor: Page
) -> None:
    page, served = visitor, start()
    page.goto(f"{served.url}/#key={served.key}")
    question = page.get_by_role("textbox", name="Message")
    question.fill("Is anybody there?")
    served.stop()
    question.press("Enter")
    answer = page.get_by_role("article", name="Answer")
    said = answer.get_by_role("alert")
    expect(said).to_contain_text("The gateway can't be reached.")
    start()
    expect(said).to_contain_text("The gateway was out of reach, and is back.")
    assert axe.violations(page, "main") == []
    # Also who closed the page meanwhile can still ask.
    page.reload()
    expect(said).to_contain_text("The gateway was out of reach, and is back.")
    said.get_by_role("button", name="Ask again").click()
    expect(answer.locator(".facts")).to_be_visible()
    expect(said).to_have_count(0)
