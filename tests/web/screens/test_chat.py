"""The Chat screen, with models that talk, don't stop, break, and write what would do harm."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, expect

from tests.harness import DEMO, wait_until
from tests.web.axe import violations
from tests.web.upstream import Line, Upstream, delta, upstream

pytestmark = pytest.mark.slow

CHAT = "**/v1/chat/completions"
HARM = """Look at this:

<script>window.harmed = "script"</script>
<img src="x" onerror="window.harmed = 'onerror'">

<a href="javascript:window.harmed = 'link'">press</a> [me](javascript:window.harmed='markdown')
![a cat](http://stranger.example/cat.png?secret=1) <img src="http://stranger.example/dog.png">

<style>body { display: none }</style><p style="position: fixed; inset: 0">over all</p>
<iframe srcdoc="<script>parent.harmed = 'frame'</script>"></iframe>

```python
def f(x):
    return "a line that is long enough to scroll within its frame " + "and not the page" * 9
```

| river | km |
|---|---:|
| Nile | 6650 |

The end.
"""


CODE = "def f(x):\n\treturn x < 1 & 2  # ü\n\n\nprint(f('`'))  "
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "has_touch": True,
    "is_mobile": True,
}
#: A model's name that has no room on a phone.
LONG = "zephyr-orpo-141b-A35b-v0.1-instruct-Q4_K_M"


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Upstream]:
    with upstream() as told:
        told.answer("harm", *re.findall(r"[\s\S]{1,9}", HARM))
        told.answer(
            "break", "Half of an", {"error": {"message": "the server fell over", "code": 500}}
        )
        told.answer(
            "code", f"Look:\n\n```python\n{CODE}\n```\n\n- and `here`:\n\n  ~~~\n  x\n  ~~~\n"
        )
        told.answer(
            "think",
            delta(reasoning_content="Let me *see*."),
            delta(
                tool_calls=[
                    {"index": 0, "id": "c", "function": {"name": "weather", "arguments": ""}}
                ]
            ),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '{"city": "Cairo"}'}}]),
        )
        yield told


@pytest.fixture(scope="module")
def models(models: dict[str, Any], elsewhere: Upstream) -> dict[str, Any]:
    remote = {"url": elsewhere.url, "modelName": "scripted"}
    return {**models, "scripted": remote, LONG: remote}


def choose(page: Page, model: str) -> None:
    """Choose a model, by keyboard."""
    page.get_by_role("button", name="Model:").focus()
    page.keyboard.press("ArrowDown")
    options = page.get_by_role("listbox", name="Model").get_by_role("option")
    options.first.wait_for()
    names = options.all_inner_texts()
    page.keyboard.press("Home")
    for _ in range([one.startswith(model) for one in names].index(True)):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=f"Model: {model}")).to_be_visible()


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")


def answer(page: Page) -> Locator:
    return page.get_by_role("article", name="Answer").last


def said(page: Page) -> str:
    return answer(page).locator(".markdown").inner_text()


def said_exactly(page: Page) -> str:
    """Spaces at its end included, without the line end that Markdown adds."""
    return (answer(page).locator(".markdown").text_content() or "").removesuffix("\n")


def write_for_a_while(page: Page, letters: int = 40) -> str:
    """Wait until so much is written; what is there then."""
    page.wait_for_function(
        "letters => [...document.querySelectorAll('.answer .markdown')].at(-1)"
        "?.textContent.length > letters",
        arg=letters,
    )
    return said(page)


def body(request: Request) -> Any:
    return json.loads(request.post_data or "")


def test_a_first_question_to_a_personality(open_page: Any, box: Any) -> None:
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
    # In the midst of it, the page is loaded again: what had come is there, and can be gone on with.
    page.reload()
    expect(answer(page)).to_contain_text("The page was closed while this was being written")
    kept = said(page)
    assert kept.startswith(stopped)
    assert len(kept) > len(stopped)
    answer(page).get_by_role("button", name="Go on").click()
    assert write_for_a_while(page, len(kept) + 20).startswith(kept)
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


def test_each_that_waits_is_told_its_place(open_page: Any, box: Any) -> None:
    first, second, third = (open_page(key=box.plain) for _ in range(3))
    choose(first, "endless")
    ask(first, "Tell me a story without an end.")
    write_for_a_while(first)
    for page, place in ((second, 1), (third, 2)):
        choose(page, "endless")
        ask(page, "And another.")
        wait_until(lambda place=place: queued(box) == place, 20, "it is in the queue")
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


def test_an_answer_that_the_network_breaks_goes_on(open_page: Any, box: Any) -> None:
    line = Line(int(box.url.rpartition(":")[2]))
    try:
        page = open_page()
        page.goto(f"http://127.0.0.1:{line.port}/#key={box.plain}")
        choose(page, "endless")
        ask(page, "Tell me a story without an end.")
        before = write_for_a_while(page)
        with page.expect_request(CHAT) as asked:
            line.cut()
        prefix = body(asked.value)["messages"][-1]
        assert prefix["role"] == "assistant"
        assert prefix["content"].startswith(before)
        whole = write_for_a_while(page, len(prefix["content"]) + 20)
        assert whole.startswith(prefix["content"])
        line.close()  # and now for good
        expect(answer(page)).to_contain_text("The connection broke before the answer was whole.")
        expect(answer(page).get_by_role("button", name="Go on")).to_be_visible()
        assert said(page).startswith(whole)
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
