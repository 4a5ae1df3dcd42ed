"""What the page loads, whom it asks, and what it offers after the first answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Request, expect

from tests.harness import DEMO, DEMO_GGUF
from tests.web.axe import violations
from tests.web.built import WEB
from tests.web.visitors import Box, OpenPage

pytestmark = pytest.mark.slow

DIST = WEB / "dist"
#: Bytes that the first screen may take, compressed.
MOST = 150_000
#: What is loaded when it is wanted.
LATER = {"Models", "Activity", "Keys", "Usage", "System", "operations", "chart", "uPlot.esm"}
#: When it has done all that it does by itself; what is streamed goes on.
_IDLE = "() => new Promise(resolve => requestIdleCallback(() => requestIdleCallback(resolve)))"


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    params = {"model": DEMO_GGUF, "threads": 2, "nPredict": 24}
    return {DEMO: {"params": params, "personalities": {"poet": "You are a poet."}}}


def ask(page: Page, text: str) -> str:
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")
    answer = page.get_by_role("article", name="Answer").last
    expect(answer.locator(".facts")).to_be_visible()
    return answer.locator(".markdown").inner_text()


def packed(path: str) -> int:
    """Bytes of a built file as gzip has it, which every browser takes, over plain http too."""
    file = DIST / ("index.html" if path == "/" else path.lstrip("/"))
    zipped = Path(f"{file}.gz")
    return (zipped if zipped.exists() else file).stat().st_size


def test_the_first_screen_is_small_and_later_ones_come_when_wanted(
    open_page: OpenPage, box: Box
) -> None:
    page = open_page("nowhere", service_workers="block")
    loaded: list[str] = []
    page.on("requestfinished", lambda request: loaded.append(urlsplit(request.url).path))
    page.goto(f"{box.url}/#key={box.admin}")
    expect(page.get_by_role("textbox", name="Message")).to_be_focused()
    page.evaluate(_IDLE)
    files = {path for path in loaded if path == "/" or (DIST / path.lstrip("/")).is_file()}
    names = {path.rpartition("/")[2].partition("-")[0] for path in files}
    assert {"index", "Chat"} <= names
    assert not LATER & names
    sizes = {path: packed(path) for path in files}
    assert sum(sizes.values()) < MOST, sizes


#: Notes what the page had loaded when there was something to write into, and what came of it.
_NOTE = """() => {
  const seen = new MutationObserver(() => {
    if (!document.querySelector("textarea, input:not([type=file])")) return;
    seen.disconnect();
    window.loaded = performance.getEntriesByType("resource").map(({name}) => name);
  });
  seen.observe(document, {childList: true, subtree: true});
}"""
#: What a phone in a far corner of the house has: bytes a second, milliseconds.
_SLOW = {"downloadThroughput": 200_000, "uploadThroughput": 90_000, "latency": 150}


@pytest.mark.parametrize("is_signed_in", [True, False])
def test_one_can_write_on_a_slow_phone_before_the_rest_is_there(
    open_page: OpenPage, box: Box, is_signed_in: bool
) -> None:
    """By what is loaded until then, as times would tell of the machine that tests."""
    phone: dict[str, Any] = {
        "viewport": {"width": 360, "height": 740},
        "has_touch": True,
        "is_mobile": True,
    }
    page = open_page("nowhere", service_workers="block", **phone)
    page.goto("about:blank")
    slow = page.context.new_cdp_session(page)
    slow.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    slow.send("Network.enable")
    slow.send("Network.emulateNetworkConditions", {"offline": False, **_SLOW})
    page.add_init_script(f"({_NOTE})()")
    page.goto(f"{box.url}/#key={box.admin}" if is_signed_in else box.url, wait_until="commit")
    field = (
        page.get_by_role("textbox", name="Message")
        if is_signed_in
        else page.get_by_label("API key", exact=True)
    )
    field.press_sequentially("Hello there")
    loaded = [urlsplit(name).path for name in page.evaluate("() => window.loaded")]
    files = {path for path in loaded if (DIST / path.lstrip("/")).is_file()}
    names = {path.rpartition("/")[2].partition("-")[0] for path in files}
    assert names >= ({"index", "Chat"} if is_signed_in else {"index"})
    assert not LATER & names
    assert sum(packed(path) for path in files) < MOST
    # What comes after that takes nothing of it away.
    page.evaluate(_IDLE)
    expect(field).to_have_value("Hello there")


def test_it_asks_nobody_but_the_gateway(open_page: OpenPage, box: Box) -> None:
    page = open_page(key=box.admin)
    others: set[str] = set()

    def seen(request: Request) -> None:
        if not request.url.startswith((f"{box.url}/", "data:", f"blob:{box.url}/")):
            others.add(request.url)

    page.context.on("request", seen)  # those of its workers, too
    page.reload()
    ask(page, "Hello")
    for link in ("Models", "Activity", "Keys", "Usage", "System"):
        page.get_by_role("navigation", name="Screens").get_by_role("link", name=link).click()
        page.get_by_role("heading", name=link, level=1).wait_for()
        page.evaluate(_IDLE)
    for path in (f"#/models/{DEMO}", f"#/models/{DEMO}/settings", "#/keys"):
        page.evaluate("path => { location.hash = path }", path)
        page.get_by_role("main").get_by_role("heading").first.wait_for()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").wait_for()
    page.goto(f"{box.url}/docs")
    page.locator(".opblock").first.wait_for()
    assert others == set()


def test_first_answer_is_followed_by_lines_for_ones_own_programs(
    open_page: OpenPage, box: Box
) -> None:
    page = open_page(key=box.plain)
    opener = page.get_by_role("button", name="Use it from your app")
    expect(page.get_by_role("textbox", name="Message")).to_be_focused()
    expect(opener).to_have_count(0)
    ask(page, "Hello")
    opener.click()
    lines = page.get_by_role("dialog", name="Use it from your app")
    app = lines.get_by_label("App", exact=True)
    app.wait_for()
    offered = app.locator("option").evaluate_all("all => all.map(one => one.value)")
    assert {"openai-python", "openai-node", "curl", "codex", "open-webui"} <= set(offered)
    code = lines.get_by_role("region")
    for client in offered:
        app.select_option(client)
        expect(code.first).not_to_be_empty()
        text = "\n".join(code.locator("code").all_inner_texts())
        assert box.url.removeprefix("http://") in text, client
        assert box.plain not in page.content()  # unless it is asked for
    app.select_option("curl")
    lines.get_by_label("Write my key into the lines").check()
    expect(code.first).to_contain_text(box.plain)
    assert violations(page, "dialog") == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Don't show this again").click()
    expect(opener).to_have_count(0)
    page.reload()
    page.get_by_role("article", name="Answer").wait_for()
    expect(opener).to_have_count(0)


def test_demo_model_answers_in_a_personality_and_a_reload_keeps_it(
    open_page: OpenPage, box: Box
) -> None:
    page = open_page(key=box.plain)
    page.get_by_role("button", name="Personality:").click()
    page.get_by_role("option", name="poet").click()
    with page.expect_request("**/v1/chat/completions") as sent:
        said = ask(page, "What is the sea?")
    body = json.loads(sent.value.post_data or "")
    assert (body["model"], body["personality"]) == (DEMO, "poet")
    assert said.strip()
    page.reload()
    answer = page.get_by_role("article", name="Answer")
    expect(answer.locator(".markdown")).to_have_text(said, use_inner_text=True)
    expect(page.get_by_role("button", name="Personality: poet")).to_be_visible()


def test_answer_as_json_is_shown(open_page: OpenPage, box: Box) -> None:
    page = open_page(key=box.plain)
    settings = page.get_by_role("button", name=re.compile("^Settings of this conversation"))
    settings.click()
    page.get_by_label("Answers", exact=True).select_option(label="As JSON by a schema")
    schema = page.get_by_label("JSON Schema", exact=True)
    schema.fill('{"type": ')
    expect(schema).to_have_attribute("aria-invalid", "true")
    kind = {"type": "object", "properties": {"wet": {"type": "boolean"}}, "required": ["wet"]}
    schema.fill(json.dumps({**kind, "additionalProperties": False}))
    assert violations(page, "dialog") == []
    page.get_by_role("button", name="Done").click()
    with page.expect_request("**/v1/chat/completions") as sent:
        answer = ask(page, "Is water wet?")
    assert json.loads(sent.value.post_data or "")["response_format"]["type"] == "json_schema"
    assert set(json.loads(answer)) == {"wet"}
    settings.click()
    page.get_by_label("Answers", exact=True).select_option(label="As JSON")
    page.get_by_role("button", name="Done").click()
    with page.expect_request("**/v1/chat/completions") as sent:
        assert ask(page, "Is water wet?").lstrip().startswith("{")
    assert json.loads(sent.value.post_data or "")["response_format"] == {"type": "json_object"}
