"""The page of the API, /docs, in Chromium: to read without a key, and to try with one."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, Request, expect

from tests.harness import DEMO
from tests.web.axe import violations

pytestmark = pytest.mark.slow

CHAT = "post_v1_chat_completions"


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    from tests.harness import DEMO_GGUF

    return {DEMO: {"params": {"model": DEMO_GGUF, "threads": 2}}}


def opened(open_page: Any, box: Any, **options: Any) -> tuple[Page, list[str]]:
    """The page, and the addresses of what it asked others for."""
    page = open_page("docs", **options)
    others: list[str] = []

    def seen(request: Request) -> None:
        if not request.url.startswith((box.url, "data:", "blob:")):
            others.append(request.url)

    page.on("request", seen)
    page.locator(".opblock").first.wait_for()
    return page, others


def test_it_is_read_without_a_key_and_tried_with_one(open_page: Any, box: Any) -> None:
    page, others = opened(open_page, box)
    groups = page.locator(".opblock-tag a.nostyle").all_inner_texts()
    assert groups[0] == "Chat"
    assert groups[-1] == "Refused"
    assert page.locator(".info").inner_text().count("\n429\t") == 1  # told once
    # Found by words, opened by a click in the contents, with its code in three languages.
    page.get_by_role("searchbox", name="Find an operation").fill("post chat completions")
    page.get_by_role("link", name="/v1/chat/completions Chat Completions").click()
    operation = page.locator(f".opblock[id$='-{CHAT}']")
    code = operation.get_by_role("region", name="Code of POST /v1/chat/completions")
    expect(code).to_contain_text(f"curl {box.url}/v1/chat/completions")
    for language, word in (("Python", "from openai import OpenAI"), ("JavaScript", "await client")):
        code.get_by_role("button", name=language).click()
        expect(code).to_contain_text(word)
        expect(code).to_contain_text(f"{box.url}/v1")
    # Without a key it says what is missing, and leads to the field.
    operation.get_by_role("button", name="Try it out").click()
    body = operation.locator("textarea").first
    body.fill(
        f'{{"model": "{DEMO}", "messages": [{{"role": "user", "content": "Hi"}}], "max_tokens": 5}}'
    )
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table")).to_contain_text("401")
    field = page.get_by_label("API key, for trying out")
    expect(field).to_be_focused()
    field.fill(box.plain)
    page.keyboard.press("Enter")
    with page.expect_response("**/v1/chat/completions") as answer:
        operation.get_by_role("button", name="Execute").click()
    assert answer.value.status == 200
    assert answer.value.request.headers["authorization"] == f"Bearer {box.plain}"
    expect(operation.locator(".live-responses-table")).to_contain_text("chat.completion")
    # The key is kept as the page's own is, in this tab.
    assert page.evaluate("() => Object.values(sessionStorage)") == [box.plain]
    assert box.plain not in page.evaluate("() => JSON.stringify(Object.entries(localStorage))")
    page.reload()
    page.get_by_role("button", name="Forget key").wait_for()
    assert others == []


def test_axe_finds_nothing_in_the_documentation(open_page: Any, box: Any) -> None:
    page, _ = opened(open_page, box)
    assert violations(page) == []
    # One with a body, one with each kind of field, and one with a file: all open, to be tried.
    for name in (CHAT, "get_admin_requests", "post_v1_audio_transcriptions"):
        operation = page.locator(f".opblock[id$='-{name}']")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
    page.get_by_label("file", exact=True).wait_for()
    assert violations(page) == []


def test_answers_are_shown_as_they_look(open_page: Any, box: Any) -> None:
    page, _ = opened(open_page, box, viewport={"width": 1024, "height": 768})
    operation = page.locator(".opblock[id$='-get_admin_requests']")
    operation.locator(".opblock-summary-control").click()
    answer = operation.locator(".responses-table .response").first
    answer.get_by_role("tab", name="Schema").click()
    schema = answer.get_by_role("tabpanel")
    expect(schema.get_by_text("under_way", exact=True)).to_be_visible()
    schema.get_by_role("button", name="Expand all").first.click()
    expect(schema.get_by_text("prefill", exact=True).first).to_be_visible()
    assert violations(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360


def test_a_stream_without_an_end_is_not_tried(open_page: Any, box: Any) -> None:
    page, _ = opened(open_page, box)
    operation = page.locator(".opblock[id$='-get_status']")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_text("curl -N").wait_for()
    assert operation.get_by_role("button", name="Try it out").count() == 0


def test_it_talks_to_this_gateway_alone(open_page: Any, box: Any) -> None:
    page, _ = opened(open_page, box)
    refused = page.evaluate(
        "() => fetch('http://stranger.example/').then(() => 'answered', error => error.name)"
    )
    assert refused == "TypeError"
    assert [re.search(r"connect-src 'self'", one) is not None for one in open_page.complaints]
    open_page.complaints.clear()


@pytest.mark.parametrize("size", [(360, 740), (1024, 768)], ids=["phone", "desk"])
def test_nothing_is_wider_than_the_window(open_page: Any, box: Any, size: tuple[int, int]) -> None:
    page, _ = opened(open_page, box, viewport={"width": size[0], "height": size[1]})
    page.locator(f".opblock[id$='-{CHAT}'] .opblock-summary-control").click()
    page.get_by_role("region", name="Code of POST /v1/chat/completions").wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= size[0]
