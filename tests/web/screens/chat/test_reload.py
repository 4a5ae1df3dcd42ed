"""The Chat screen: answers that go on when their page is loaded again, closed, or open twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from playwright.sync_api import Page, expect

from tests.harness import wait_until
from tests.web.screens.chat.asking import CHAT, answer, ask, choose, said, write_for_a_while
from tests.web.upstream import Upstream, delta
from tests.web.visitors import Box, OpenPage

pytestmark = pytest.mark.slow

#: As a page has none that came by plain HTTP from elsewhere.
WITHOUT_LOCKS = "Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })"


#: Whether the browser has kept a message with these words.
KEPT = """words => new Promise(resolve => {
  const opening = indexedDB.open("llm-gateway.conversations");
  opening.onsuccess = () => {
    const database = opening.result;
    const all = database.transaction("messages").objectStore("messages").getAll();
    all.onsuccess = () => {
      database.close();
      resolve(all.result.some(one => one.content.includes(words)));
    };
  };
})"""


@pytest.fixture
def asked(
    open_page: OpenPage, box: Box, elsewhere: Upstream
) -> Iterator[tuple[Page, Callable[[], None]]]:
    """Half an answer, and what lets the other half come."""
    gate = threading.Event()
    call = {"index": 0, "id": "c", "function": {"name": "weather", "arguments": '{"city"'}}
    elsewhere.answer(
        "count",
        delta(reasoning_content="Let me "),
        delta(reasoning_content="see."),
        "one ",
        delta(tool_calls=[call]),
        "two ",
        gate,
        delta(tool_calls=[{"index": 0, "function": {"arguments": ': "Cairo"}'}}]),
        "three ",
        "four",
    )
    page = open_page(key=box.plain)
    choose(page, "scripted")
    ask(page, "count")
    expect(answer(page).locator(".markdown").last).to_have_text("one two")
    wait_until(lambda: page.evaluate(KEPT, "two"), 20, "it is kept")
    yield page, gate.set
    gate.set()


@pytest.fixture
def asked_early(
    open_page: OpenPage, box: Box, elsewhere: Upstream
) -> Iterator[tuple[Page, Callable[[], None]]]:
    """A page that has asked and seen nothing of an answer, not even its head; and what lets it
    come.
    """
    gate = threading.Event()
    elsewhere.answer("early", gate, "one ", "two")
    page = open_page(key=box.plain)
    choose(page, "scripted")
    count = len(elsewhere.asked)
    ask(page, "early")
    wait_until(lambda: len(elsewhere.asked) > count, 20, "it is asked")
    page.wait_for_url("**/#/chat/*")
    yield page, gate.set
    gate.set()


def is_early_whole(page: Page) -> None:
    expect(answer(page).get_by_role("button", name="Copy", exact=True)).to_be_visible()
    assert said(page) == "one two"


@pytest.mark.parametrize("locks", [True, False], ids=["https", "http"])
@pytest.mark.parametrize("leaves", ["reloads", "closes"])
def test_answer_goes_on_whose_page_is_gone_before_it_begins(
    asked_early: tuple[Page, Callable[[], None]],
    leaves: str,
    locks: bool,
    elsewhere: Upstream,
    box: Box,
) -> None:
    page, let_it_come = asked_early
    count = len(elsewhere.asked)
    if not locks:
        page.context.add_init_script(WITHOUT_LOCKS)
    if leaves == "reloads":
        page.reload()
    else:
        address, context = page.url, page.context
        page.close()
        page = context.new_page()
        page.goto(f"{box.url}/#key={box.plain}")
        page.goto(address)
    expect(answer(page).locator(".waiting")).to_be_visible()
    let_it_come()
    is_early_whole(page)
    assert len(elsewhere.asked) == count
    page.reload()
    is_early_whole(page)


@pytest.mark.parametrize("locks", [True, False], ids=["https", "http"])
def test_second_tab_shows_an_answer_that_has_not_begun(
    asked_early: tuple[Page, Callable[[], None]], locks: bool, elsewhere: Upstream, box: Box
) -> None:
    first, let_it_come = asked_early
    count = len(elsewhere.asked)
    if not locks:
        first.context.add_init_script(WITHOUT_LOCKS)
        first.reload()
    second = first.context.new_page()
    second.goto(f"{box.url}/#key={box.plain}")
    second.goto(first.url)
    if locks:
        expect(answer(second)).to_contain_text("Another tab is writing this")
    else:
        expect(answer(second).locator(".waiting")).to_be_visible()
    let_it_come()
    for page in (first, second):
        is_early_whole(page)
    assert len(elsewhere.asked) == count


def test_stop_before_an_answer_begins_stops_it_at_the_gateway(
    asked_early: tuple[Page, Callable[[], None]], box: Box
) -> None:
    page, _ = asked_early
    page.reload()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(answer(page)).to_contain_text("Stopped")
    wait_until(partial(is_free, box), 20, "nobody works on it")


def test_reload_while_the_model_loads_loses_nothing(open_page: OpenPage, box: Box) -> None:
    page = open_page(key=box.plain)
    choose(page, "parrot")
    box.ask("GET", "/unloadModel?model=parrot")
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.method + one.url.removeprefix(box.url)))
    with page.expect_request(CHAT):
        ask(page, "Hello?")
    page.reload()
    expect(answer(page).get_by_role("button", name="Copy", exact=True)).to_be_visible()
    assert said(page) != ""
    assert asked.count("POST/v1/chat/completions") == 1
    assert [one for one in asked if one.startswith("GET/v1/streams/")]


def is_whole(page: Page) -> None:
    """The answer is there, each piece of it once."""
    expect(answer(page).get_by_role("button", name="Copy", exact=True)).to_be_visible()
    assert said(page) == "one two three four"
    expect(answer(page).get_by_role("group", name="Code in json").locator("code")).to_have_text(
        '{ "city": "Cairo" }'
    )
    answer(page).get_by_text("Thought").click()
    expect(answer(page).locator("details .markdown")).to_have_text("Let me see.")


@pytest.mark.parametrize("leaves", ["reloads", "closes"])
def test_answer_goes_on_when_its_page_is_loaded_again(
    asked: tuple[Page, Callable[[], None]], leaves: str, elsewhere: Upstream, box: Box
) -> None:
    page, let_it_come = asked
    count = len(elsewhere.asked)
    if leaves == "reloads":
        page.reload()
        expect(answer(page).locator(".waiting")).to_contain_text("Writing")
        assert said(page) == "one two"
        let_it_come()
    else:
        address, context = page.url, page.context
        page.close()
        let_it_come()
        page = context.new_page()
        page.goto(f"{box.url}/#key={box.plain}")
        page.goto(address)
    is_whole(page)
    assert len(elsewhere.asked) == count  # it was read on, and not asked again
    page.reload()
    is_whole(page)


@pytest.mark.parametrize("locks", [True, False], ids=["https", "http"])
def test_two_tabs_show_one_answer_and_either_brings_it_to_its_end(
    asked: tuple[Page, Callable[[], None]], locks: bool, box: Box
) -> None:
    first, let_it_come = asked
    if not locks:
        first.context.add_init_script(WITHOUT_LOCKS)
        first.reload()
    second = first.context.new_page()
    second.goto(f"{box.url}/#key={box.plain}")
    second.goto(first.url)
    expect(answer(second).locator(".markdown").last).to_have_text("one two")
    expect(answer(second).locator(".waiting")).to_contain_text(
        "Another tab is writing this" if locks else "Writing"
    )
    if locks:
        first.close()
        expect(answer(second).locator(".waiting")).to_contain_text("Writing")
    let_it_come()
    is_whole(second)
    if not locks:
        is_whole(first)


def test_stop_in_any_tab_stops_the_answer_at_the_gateway(open_page: OpenPage, box: Box) -> None:
    first = open_page(key=box.plain)
    choose(first, "endless")
    ask(first, "Tell me a story without an end.")
    before = write_for_a_while(first)
    first.reload()
    assert write_for_a_while(first, len(before) + 20).startswith(before)
    second = first.context.new_page()
    second.goto(f"{box.url}/#key={box.plain}")
    second.goto(first.url)
    expect(answer(second)).to_contain_text("Another tab is writing this")
    write_for_a_while(second, len(before) + 60)
    second.get_by_role("button", name="Stop", exact=True).click()
    for page in (first, second):
        expect(answer(page)).to_contain_text("Stopped")
    wait_until(partial(is_free, box), 20, "its slot is free")
    assert said(first) == said(second)


def is_free(box: Box) -> bool:
    return all(one["in_flight"] == 0 for one in box.ask("GET", "/admin/status")["models"])


def test_what_the_gateway_no_longer_has_is_told_and_asked_again(
    asked: tuple[Page, Callable[[], None]], box: Box
) -> None:
    page, let_it_come = asked
    address = page.url
    with page.expect_request("**/v1/streams/*") as read:
        page.reload()
    page.goto("about:blank")
    box.ask("DELETE", read.value.url.removeprefix(box.url), key=box.plain)
    page.goto(address)
    expect(answer(page)).to_contain_text("The gateway no longer has the rest of this answer")
    expect(answer(page).locator(".markdown").last).to_have_text("one two")
    let_it_come()
    answer(page).get_by_role("button", name="Answer again").click()
    is_whole(page)
