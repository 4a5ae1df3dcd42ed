"""The Chat screen: questions, their answers, and editing them."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.harness import wait_until
from tests.web.axe import violations
from tests.web.screens.chat.asking import CHAT, answer, ask, body, choose, said, write_for_a_while
from tests.web.visitors import Box

pytestmark = pytest.mark.slow


def said_exactly(page: Page) -> str:
    """Spaces at its end included, without the line end that Markdown adds."""
    return (answer(page).locator(".markdown").text_content() or "").removesuffix("\n")


def test_first_question_goes_to_the_chosen_personality(open_page: Any, box: Any) -> None:
    page = open_page(key=box.admin)
    expect(page.get_by_role("textbox", name="Message")).to_be_focused()
    expect(page.get_by_role("list", name="Questions to try").get_by_role("button")).to_have_count(3)
    choose(page, "tiny")
    page.get_by_role("button", name="Personality:").click()
    page.get_by_role("option", name="geography teacher").click()
    assert violations(page, "main") == []
    with page.expect_request(CHAT) as asked:
        page.get_by_role("button", name="Why does the Nile flow north?").click()
    expect(answer(page).locator(".facts")).to_have_text(
        re.compile(r"^(< )?\d+\.\d s to first word, [\d,]+ words/s here, on this box$")
    )
    assert re.fullmatch("[a-z ]{20}", said_exactly(page))
    sent = body(asked.value)
    assert (sent["model"], sent["personality"]) == ("tiny", "geography teacher")
    assert sent["messages"] == [{"role": "user", "content": "Why does the Nile flow north?"}]

    before = said(page)
    ask(page, "And why not south?")
    expect(answer(page).locator(".facts")).to_have_text(
        re.compile(
            r"^[\d.,]+ tokens/s · \d+ tokens · [1-9]\d* of \d+ prompt tokens cached · "
            r"first token in (< )?\d+(\.\d)? s$"
        )
    )
    page.reload()
    expect(page.get_by_role("article", name="You")).to_have_count(2)
    assert page.get_by_role("article", name="Answer").first.locator(".markdown").inner_text() == (
        before
    )
    assert violations(page, "main") == []


def test_stop_frees_the_slot_and_what_came_is_gone_on_with(open_page: Any, box: Any) -> None:
    page = open_page(key=box.plain)
    choose(page, "endless")
    ask(page, "Tell me a story without an end.")
    write_for_a_while(page)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(answer(page)).to_contain_text("Stopped")
    wait_until(lambda: box.ask("GET", "/admin/status")["in_flight"] <= 1, 20, "its slot is free")
    stopped = said(page)
    assert len(stopped) >= 40

    with page.expect_request(CHAT) as asked:
        answer(page).get_by_role("button", name="Go on").click()
    assert body(asked.value)["messages"][-1] == {
        "role": "assistant",
        "content": stopped,
    }
    whole = write_for_a_while(page, len(stopped) + 1500)
    assert whole.startswith(stopped)
    page.keyboard.press("Escape")
    expect(answer(page)).to_contain_text("Stopped")


#: What is said of it in the next five seconds, in which it is looked for more than once.
_SAID = """async element => {
  const said = new Set();
  for (const end = performance.now() + 5000; performance.now() < end; ) {
    said.add(element.textContent.trim());
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  return [...said];
}"""


def waits_at(box: Box, place: int) -> bool:
    return queued(box) == place


def test_each_that_waits_is_told_its_place(open_page: Any, box: Any) -> None:
    first, second, third = (open_page(key=box.plain) for _ in range(3))
    choose(first, "endless")
    ask(first, "Tell me a story without an end.")
    write_for_a_while(first)
    for page, place in ((second, 1), (third, 2)):
        choose(page, "endless")
        ask(page, "And another.")
        wait_until(partial(waits_at, box, place), 20, "it is in the queue")
        page.wait_for_timeout(3000)  # who waits is known by the seconds it has waited
    for page, place in ((second, 1), (third, 2)):
        words = f"Waiting, {place} of 2 in the queue"
        told = answer(page).locator(".waiting").get_by_role("status")
        expect(told).to_have_text(words)
        assert told.evaluate(_SAID) == [words]
        expect(answer(page)).to_contain_text(re.compile(r"queue\W*\d+ s"))
    for page in (third, second, first):
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(answer(page)).to_contain_text("Stopped")


def queued(box: Any) -> int:
    return sum(one["queued"] for one in box.ask("GET", "/admin/status")["models"])


def test_questions_are_edited_and_answers_had_again(open_page: Any, box: Any) -> None:
    page = open_page(key=box.plain)
    choose(page, "tiny")
    ask(page, "First words")
    expect(answer(page).locator(".facts")).to_be_visible()
    question = page.get_by_role("article", name="You")
    # Its buttons stand beside it, not between it and its answer.
    heights = [one.bounding_box()["height"] for one in (question, question.locator(".bubble"))]
    assert heights[0] == pytest.approx(heights[1], abs=1)
    question.get_by_role("button", name="Edit and ask again").click()
    editor = question.get_by_role("textbox", name="Edit and ask again")
    expect(editor).to_be_focused()
    editor.fill("Other words")
    question.get_by_role("button", name="Ask again").click()
    expect(question).to_contain_text("2/2")
    expect(answer(page).locator(".facts")).to_be_visible()
    answer(page).get_by_role("button", name="Answer again").click()
    expect(answer(page)).to_contain_text("2/2")
    question.get_by_role("button", name="Version before").click()
    expect(question).to_contain_text("First words")
    expect(answer(page)).not_to_contain_text("/2")
    # What is typed and not sent is there after a reload.
    page.get_by_role("textbox", name="Message").fill("half a thought")
    page.reload()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("half a thought")


def test_a_question_is_edited_while_an_answer_is_written(open_page: Any, box: Any) -> None:
    page = open_page(key=box.plain)
    choose(page, "endless")
    ask(page, "Tell me a story without an end.")
    write_for_a_while(page)
    question = page.get_by_role("article", name="You").first
    edit = question.get_by_role("button", name="Edit and ask again")
    again = question.get_by_role("button", name="Ask again", exact=True)
    edit.click()
    question.get_by_role("textbox").fill("And another.")
    page.keyboard.press("Control+Enter")
    expect(again).to_be_disabled()
    page.keyboard.press("Escape")
    edit.click()
    expect(question.get_by_role("textbox")).to_have_value("And another.")
    assert violations(page, "main") == []
    # Neither has ended the answer. Once it has, the question can be asked.
    page.get_by_role("button", name="Stop", exact=True).click()
    again.click()
    expect(question).to_contain_text("2/2")
    write_for_a_while(page)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(answer(page)).to_contain_text("Stopped")


def test_a_conversation_that_is_deleted_ends_its_answer(open_page: Any, box: Any) -> None:
    page = open_page(key=box.plain)
    choose(page, "endless")
    ask(page, "Tell me a story without an end.")
    written = write_for_a_while(page)
    search = page.get_by_role("searchbox", name="Search conversations")
    show = page.get_by_role("button", name="Show conversations").first
    search.or_(show).first.wait_for()
    if not search.is_visible():
        show.click()
    page.locator(".conversation").first.hover()
    page.get_by_role("button", name="Actions for").first.click()
    with page.expect_event("requestfailed", lambda request: "/chat/completions" in request.url):
        page.get_by_role("menuitem", name="Delete", exact=True).click()
    page.get_by_role("button", name="Undo").click()
    expect(answer(page)).to_contain_text("Stopped")
    assert said(page).startswith(written)
