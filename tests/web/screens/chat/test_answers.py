"""The Chat screen: answers that break, end in errors, or would do harm."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.harness import DEMO
from tests.web.axe import violations
from tests.web.screens.chat.asking import (
    CODE,
    LONG,
    answer,
    ask,
    choose,
    said,
    write_for_a_while,
)
from tests.web.upstream import Line

pytestmark = pytest.mark.slow


PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "has_touch": True,
    "is_mobile": True,
}


def test_an_answer_that_the_network_breaks_goes_on(open_page: Any, box: Any) -> None:
    line = Line(int(box.url.rpartition(":")[2]))
    try:
        page = open_page()
        page.goto(f"http://127.0.0.1:{line.port}/#key={box.plain}")
        choose(page, "endless")
        ask(page, "Tell me a story without an end.")
        before = write_for_a_while(page)
        with page.expect_request("**/v1/streams/*") as asked:
            line.cut()
        assert int(asked.value.headers["last-event-id"]) > 0
        whole = write_for_a_while(page, len(before) + 40)
        assert whole.startswith(before)
        line.close()  # and now for good
        expect(answer(page)).to_contain_text("The connection broke, going on")
        assert said(page).startswith(whole)
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(answer(page).get_by_role("button", name="Go on")).to_be_visible()
        # Nobody could tell the gateway, which would go on for a while.
        box.ask("DELETE", urlsplit(asked.value.url).path, key=box.plain)
    finally:
        line.close()


def test_what_a_model_writes_does_nothing(open_page: Any, box: Any) -> None:
    page = open_page(key=box.plain)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    choose(page, "scripted")
    ask(page, "harm")
    expect(answer(page)).to_contain_text("The end.")
    expect(answer(page).locator(".hljs-keyword").first).to_be_visible()
    assert page.evaluate("() => 'harmed' in window") is False
    assert [url for url in asked if not url.startswith((box.url, "blob:", "data:"))] == []
    cat = answer(page).get_by_role("link", name="a cat")
    expect(cat).to_have_attribute("href", "http://stranger.example/cat.png?secret=1")
    expect(cat).to_have_attribute("rel", "noopener noreferrer nofollow")
    assert answer(page).locator("img, iframe, style, script, [style]").count() == 0
    for link in answer(page).get_by_role("link").all():
        assert (link.get_attribute("href") or "").startswith("http://stranger.example/")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert violations(page, "main") == []

    # And if it came into the page by whatever way, nothing of it would run or be fetched.
    blocked = page.evaluate(
        """() => new Promise(resolve => {
          const blocked = new Set();
          addEventListener("securitypolicyviolation", ({effectiveDirective}) => {
            blocked.add(effectiveDirective);
            if (blocked.size === 3) resolve([...blocked].sort());
          });
          const script = document.createElement("script");
          script.textContent = "window.harmed = 'inline'";
          document.body.append(script);
          const place = document.createElement("div");
          place.innerHTML = "<img src='http://stranger.example/x.png'>"
            + "<button onclick='window.harmed = 1'>x</button>";
          document.body.append(place);
          place.querySelector("button").click();
        })"""
    )
    assert blocked == ["img-src", "script-src-attr", "script-src-elem"]
    assert page.evaluate("() => 'harmed' in window") is False
    open_page.complaints.clear()


def test_an_error_in_the_midst_tells_its_request(open_page: Any, box: Any) -> None:
    page = open_page(key=box.admin)
    choose(page, "scripted")
    ask(page, "break")
    alert = answer(page).get_by_role("alert")
    expect(alert).to_contain_text("the server fell over")
    expect(alert.locator("code")).to_have_text(re.compile("^req_"))
    expect(alert.get_by_role("link", name="See the model's log")).to_have_attribute(
        "href", "#/models/scripted"
    )
    assert said(page) == "Half of an"
    ask(page, "think")
    call = answer(page)
    expect(call).to_contain_text("Calls weather")
    expect(call.get_by_role("group", name="Code in json")).to_contain_text('"city": "Cairo"')
    expect(call.get_by_text("Let me see.")).to_be_hidden()
    call.get_by_text(re.compile("^Thought")).click()
    expect(call.get_by_text("Let me see.")).to_be_visible()
    assert violations(page, "main") == []


def test_the_copy_button_copies_the_code_and_nothing_else(open_page: Any, box: Any) -> None:
    page = open_page(key=box.plain, permissions=["clipboard-read", "clipboard-write"])
    choose(page, "scripted")
    ask(page, "code")
    expect(answer(page).locator(".facts")).to_be_visible()
    copied = "() => navigator.clipboard.readText()"
    for place, code in (("Code in python", CODE), ("Code", "x")):
        block = answer(page).get_by_role("group", name=place, exact=True)
        block.get_by_role("button", name="Copy this code").click()
        expect(block.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate(copied) == code
    answer(page).get_by_role("button", name="Copy", exact=True).click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()).includes('Look:')")


def test_pickers_tell_of_state_and_memory(open_page: Any, box: Any) -> None:
    box.ask("POST", "/loadModel", {"model": "tiny"})
    for key, memory in (
        (box.admin, r"(takes|holds|about) [\d.]+ [KMG]iB"),
        (box.plain, "[KMG]iB of weights"),
    ):
        page = open_page(key=key)
        choose(page, "tiny")
        page.get_by_role("button", name="Model:").click()
        models = page.get_by_role("listbox", name="Model")
        expect(models.get_by_role("option", name="tiny")).to_contain_text(
            re.compile(rf"{memory}.*loaded$")
        )
        expect(models.get_by_role("option", name="scripted")).to_contain_text("elsewhere")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Personality:").click()
        personalities = page.get_by_role("listbox", name="Personality")
        expect(personalities).to_have_accessible_description(re.compile(f"loaded.*{memory}"))
        assert violations(page, "main") == []
        page.keyboard.press("Escape")


def test_a_phone_has_one_bar(open_page: Any, box: Any) -> None:
    page = open_page(key=box.plain, **PHONE)
    bar = page.get_by_role("banner")
    cut = "element => element.scrollWidth > element.clientWidth"
    for model, is_cut in ((LONG, True), (DEMO, False), ("tiny", False)):
        bar.get_by_role("button", name="Model:").click()
        page.get_by_role("option", name=model).click()
        picker = bar.get_by_role("button", name=f"Model: {model}")
        assert picker.locator(".state > span").evaluate(cut) is is_cut
        expect(picker.locator(".state > svg")).to_be_in_viewport(ratio=1)
        for button in bar.get_by_role("button").all():
            expect(button).to_be_in_viewport(ratio=1)
        assert bar.bounding_box()["height"] <= 56
        assert page.evaluate("() => document.documentElement.scrollWidth") == 360
    expect(page.get_by_role("button", name="Model:")).to_have_count(1)
    page.get_by_role("button", name="Personality:").click()
    page.get_by_role("option", name="geography teacher").click()
    page.get_by_role("heading", name="Ask the geography teacher").wait_for()
    assert violations(page) == []
    more = bar.get_by_role("button", name="Conversations and settings")
    for item in ("Settings of this conversation", "Conversations"):
        more.click()
        page.get_by_role("menuitem", name=item, exact=True).click()
        page.get_by_role("dialog", name=item).wait_for()
        page.keyboard.press("Escape")
        expect(more).to_be_focused()
    page.evaluate("location.hash = '#/usage'")
    expect(bar.get_by_role("button", name="Model:")).to_have_count(0)
