"""Conversations on the page: kept, listed, searched, moved in and out; and the switcher."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.web.axe import violations
from tests.web.visitors import Box, OpenPage

WORD = re.compile("[a-z ]{20}")


@pytest.fixture(scope="module")
def models(tiny_model: Path) -> dict[str, Any]:
    return {
        "tiny": {
            "params": {"model": str(tiny_model), "ctxSize": 8192, "threads": 1},
            "setParams": {"temperature": 0, "grammar": "root ::= [a-z ]{20,20}"},
            "personalities": {"geography teacher": "You are a geography teacher."},
        }
    }


def exported(number: int) -> bytes:
    """An export of so many conversations, each of a question and an answer; newest first."""
    now = 1_790_000_000_000
    conversations = [
        {
            "id": f"c{n}",
            "title": f"Question {n}",
            "created": now - n,
            "updated": now - n,
            "leaf": f"a{n}",
            "messages": [
                {
                    "id": f"q{n}",
                    "parent": None,
                    "role": "user",
                    "content": f"What is {n}?",
                    "created": now - n,
                },
                {
                    "id": f"a{n}",
                    "parent": f"q{n}",
                    "role": "assistant",
                    "content": f"The number after {n - 1}, called Ñandú{n}.",
                    "finish": "stop",
                    "created": now - n + 1,
                },
            ],
        }
        for n in range(number)
    ]
    file = {"format": "llm-gateway-conversations", "version": 1, "conversations": conversations}
    return json.dumps(file).encode()


def show_list(page: Page) -> None:
    search = page.get_by_role("searchbox", name="Search conversations")
    show = page.get_by_role("button", name="Show conversations")
    search.or_(show).first.wait_for()
    if not search.is_visible():
        show.first.click()


def row(page: Page, title: str) -> Locator:
    """The link to a conversation in the list."""
    rows = page.locator(".conversation").get_by_role("link")
    return rows.filter(has_text=re.compile(f"^{re.escape(title)}"))


def act(page: Page, title: str, action: str) -> None:
    row(page, title).hover()
    page.get_by_role("button", name=f"Actions for “{title}”").click()
    page.get_by_role("menuitem", name=action, exact=True).click()


def act_on_all(page: Page, action: str) -> None:
    page.get_by_role("button", name="Export, import, delete all").click()
    page.get_by_role("menuitem", name=action).click()


def take_in(page: Page, name: str, content: bytes, says: str) -> None:
    show_list(page)
    act_on_all(page, "Import…")
    file: Any = {"name": name, "mimeType": "application/json", "buffer": content}
    page.get_by_label("Files to import").set_input_files(files=[file])
    page.get_by_text(says).wait_for()
    page.get_by_role("button", name="Done").click()


def ask(page: Page, question: str) -> None:
    page.get_by_role("textbox", name="Message").fill(question)
    page.keyboard.press("Enter")
    page.get_by_text(WORD).first.wait_for()


def test_a_conversation_outlives_a_reload_and_is_renamed_pinned_deleted(admin_page: Page) -> None:
    page = admin_page
    show_list(page)
    page.get_by_text("What you ask appears here.").wait_for()
    ask(page, "Where is the Nile?")
    row(page, "Where is the Nile?").wait_for()
    page.wait_for_url(re.compile(r"#/chat/[0-9a-f]{20}$"))
    page.reload()
    page.get_by_text(WORD).first.wait_for()

    row(page, "Where is the Nile?").focus()
    page.keyboard.press("F2")
    page.get_by_role("textbox", name="Title").fill("Rivers")
    page.keyboard.press("Enter")
    expect(row(page, "Rivers")).to_be_focused()
    act(page, "Rivers", "Pin")
    page.get_by_role("region", name="Pinned").get_by_role("link").wait_for()
    page.get_by_role("link", name="Rivers").focus()
    page.keyboard.press("F2")
    page.get_by_role("textbox", name="Title").fill("Lakes")
    page.keyboard.press("Escape")
    row(page, "Rivers").focus()
    page.keyboard.press("Delete")
    page.get_by_text("“Rivers” was deleted.").wait_for()
    expect(row(page, "Rivers")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    page.get_by_text(WORD).first.wait_for()
    page.reload()
    page.get_by_role("region", name="Pinned").get_by_role("link", name="Rivers").wait_for()


def test_settings_go_into_the_request_and_are_checked(admin_page: Page) -> None:
    page = admin_page
    page.get_by_role("button", name="Settings of this conversation").click()
    page.get_by_label("Temperature").fill("3")
    page.get_by_text("A number between 0 and 2, or nothing").wait_for()
    page.get_by_label("Temperature").fill("0,5")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Longest answer").fill("7")
    assert violations(page, "dialog") == []
    page.get_by_role("button", name="Done").click()
    opener = page.get_by_role("button", name="Settings of this conversation (changed)")
    expect(opener).to_be_focused()
    with page.expect_request("**/chat/completions") as asked:
        ask_words(page, "Where?")
    body = asked.value.post_data_json
    assert body["temperature"] == 0.5
    assert body["max_tokens"] == 7
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    opener.click()
    page.get_by_role("button", name="Reset to the model's own").click()
    expect(page.get_by_label("System prompt")).to_have_value("")


def ask_words(page: Page, question: str) -> None:
    page.get_by_role("textbox", name="Message").fill(question)
    page.keyboard.press("Enter")


def test_an_export_goes_round_search_finds_and_all_can_be_deleted(
    admin_page: Page, tmp_path: Path
) -> None:
    page = admin_page
    take_in(page, "many.json", exported(1000), "1,000 conversations added.")
    page.get_by_text("50 of 1,000 shown").wait_for()
    search = page.get_by_role("searchbox", name="Search conversations")
    search.fill("nandu777")
    page.locator("mark", has_text="Ñandú777").wait_for()
    expect(page.locator(".conversation")).to_have_count(1)
    search.press("ArrowDown")
    expect(row(page, "Question 777")).to_be_focused()
    search.press("Enter")
    page.get_by_text("What is 777?").wait_for()
    search.fill("")
    assert violations(page) == []

    with page.expect_download() as download:
        act_on_all(page, "Export all as JSON")
    file = tmp_path / "all.json"
    download.value.save_as(file)
    assert len(json.loads(file.read_text())["conversations"]) == 1000
    with page.expect_download() as download:
        act(page, "Question 0", "Save as Markdown")
    assert download.value.suggested_filename == "Question 0.md"
    markdown = Path(download.value.path()).read_bytes()
    assert b"What is 0?" in markdown
    act(page, "Question 0", "Delete")
    expect(row(page, "Question 0")).to_have_count(0)
    take_in(page, "Question 0.md", markdown, "1 conversation added.")
    row(page, "Question 0").click()
    page.get_by_text("What is 0?").wait_for()
    page.get_by_role("article", name="Answer").get_by_text("called Ñandú0.").wait_for()
    take_in(page, "Question 0.md", markdown, "1 was here already.")
    take_in(page, "notes.md", b"# Notes", "nor Markdown that was exported here")

    take_in(page, "again.json", file.read_bytes(), "1,000 were here already.")
    take_in(page, "bad.json", b"{", "This is no JSON file")
    act_on_all(page, "Delete all…")
    page.get_by_role("dialog", name="Delete all 1,000 conversations?").wait_for()
    page.get_by_role("button", name="Delete 1,000 conversations").click()
    page.get_by_text("What you ask appears here.").wait_for()
    take_in(page, "all.json", file.read_bytes(), "1,000 conversations added.")
    page.reload()
    page.get_by_text("50 of 1,000 shown").wait_for()


LONG = """Some words, *and more*.

```python
print("line of code")
```

| river | km |
|---|---:|
| Nile | 6650 |
"""
#: How many messages are laid out: those that the browser has not skipped.
_LAID_OUT = """() => [...document.querySelectorAll(".message")].filter(one =>
  one.firstElementChild.checkVisibility({contentVisibilityAuto: true})).length"""


def long_conversation(messages: int) -> bytes:
    """An export of one."""
    now = 1_790_000_000_000
    said = [
        {
            "id": f"m{number}",
            "parent": f"m{number - 1}" if number else None,
            "role": "assistant" if number % 2 else "user",
            "content": f"Number {number}.\n\n{LONG if number % 2 else 'Why?'}",
            "finish": "stop",
            "created": now + number,
        }
        for number in range(messages)
    ]
    conversation = {"id": "long", "title": "Long", "created": now, "updated": now}
    conversations = [{**conversation, "leaf": said[-1]["id"], "messages": said}]
    file = {"format": "llm-gateway-conversations", "version": 1, "conversations": conversations}
    return json.dumps(file).encode()


def test_of_500_messages_only_those_in_sight_are_laid_out(admin_page: Page) -> None:
    page = admin_page
    take_in(page, "long.json", long_conversation(500), "1 conversation added.")
    row(page, "Long").click()
    expect(page.locator(".message")).to_have_count(500)
    expect(page.get_by_text("Number 499.")).to_be_in_viewport()
    # When the Markdown of all has been worked out, which is done while nobody waits.
    expect(page.locator(".as-it-is")).to_have_count(0)
    assert page.evaluate(_LAID_OUT) < 50
    thread = page.get_by_role("region", name="Messages")
    thread.focus()
    page.keyboard.press("Home")
    expect(page.get_by_text("Number 0.")).to_be_in_viewport()
    assert page.evaluate(_LAID_OUT) < 50
    page.keyboard.press("PageDown")
    expect(page.get_by_text("Number 0.")).not_to_be_in_viewport()
    page.get_by_role("button", name="Jump to the end").click()
    expect(page.get_by_text("Number 499.")).to_be_in_viewport()
    assert page.evaluate(_LAID_OUT) < 50


def test_a_question_to_a_model_that_is_gone_waits_for_another(admin_page: Page) -> None:
    page = admin_page
    file = json.loads(exported(1))
    file["conversations"][0]["model"] = "sold"
    take_in(page, "one.json", json.dumps(file).encode(), "1 conversation added.")
    row(page, "Question 0").click()
    page.get_by_text("What is 0?").wait_for()
    picker = page.get_by_role("button", name="Model:")
    expect(picker).to_have_text("sold (not here any more)")
    ask_words(page, "And what is 1?")
    question = page.get_by_role("textbox", name="Message")
    expect(question).to_have_value("And what is 1?")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    picker.click()
    page.get_by_role("option", name="tiny").click()
    question.press("Enter")
    page.get_by_text(WORD).first.wait_for()
    expect(question).to_have_value("")


def test_two_tabs_see_what_the_other_does(open_page: OpenPage, box: Box) -> None:
    one = open_page(key=box.admin)
    take_in(one, "two.json", exported(2), "2 conversations added.")
    two = one.context.new_page()
    two.goto(f"{box.url}/#key={box.admin}")
    show_list(two)
    row(two, "Question 1").click()
    two.get_by_text("What is 1?").wait_for()
    row(one, "Question 1").click()
    one.get_by_text("What is 1?").wait_for()
    ask_words(one, "And then?")
    two.get_by_text("And then?").wait_for()
    two.get_by_text(WORD).first.wait_for()
    act(two, "Question 0", "Delete")
    expect(row(one, "Question 0")).to_have_count(0)


def test_switcher_works_by_keyboard(admin_page: Page) -> None:
    page = admin_page
    take_in(page, "three.json", exported(3), "3 conversations added.")
    page.keyboard.press("Control+k")
    field = page.get_by_role("combobox", name="Screen, conversation, model or action")
    expect(field).to_be_focused()
    assert violations(page, "dialog") == []
    field.fill("question 2")
    page.get_by_role("option", name="Question 2", selected=True).wait_for()
    page.keyboard.press("Enter")
    page.get_by_text("What is 2?").wait_for()
    page.keyboard.press("Control+k")
    field.fill("geo")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Personality: geography teacher")).to_be_visible()
    page.keyboard.press("Control+k")
    field.fill("activ")
    page.keyboard.press("Enter")
    page.wait_for_url("**/#/activity")
    page.get_by_role("main").focus()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
    assert violations(page, "dialog") == []
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    field.fill("dark")
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_a_plain_key_is_offered_no_more_than_it_may_see(plain_page: Page) -> None:
    plain_page.keyboard.press("Control+k")
    plain_page.get_by_role("option", name="Usage").wait_for()
    assert plain_page.get_by_role("option", name="Models").count() == 0


def test_one_that_cannot_be_read_is_tried_again(open_page: OpenPage, box: Box) -> None:
    page = open_page(key=box.plain)
    take_in(page, "export.json", exported(1), "1 conversation added.")
    page.evaluate(
        """() => {
          const {get} = IDBObjectStore.prototype;
          window.mend = () => { IDBObjectStore.prototype.get = get; };
          IDBObjectStore.prototype.get = () => { throw new DOMException("broken", "DataError"); };
        }"""
    )
    row(page, "Question 0").click()
    main = page.get_by_role("region", name="Chat")
    main.get_by_role("heading", name="This conversation could not be opened").wait_for()
    assert violations(page, "main") == []
    page.evaluate("window.mend()")
    main.get_by_role("button", name="Try again").click()
    page.get_by_role("article", name="Answer").get_by_text("The number after -1").wait_for()
    expect(page.get_by_text("The browser could not read what it keeps")).to_have_count(0)
