"""States of the chat, and of what lies over it."""

from __future__ import annotations

import re
import time
from typing import Any

from tests.harness import DEMO
from tests.web.look import answers
from tests.web.look.acts import (
    answered,
    ask,
    at,
    choose,
    go,
    import_file,
    more,
    show_list,
    to_top,
)
from tests.web.look.camera import Shots
from tests.web.look.gateways import Gateways
from tests.web.look.state import state
from tests.web.screens.test_pictures import png


@state("No models")
def _no_models(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.bare, "#/chat") as page:
            page.get_by_role("link", name="models").first.wait_for()
            visit.take(page)
            go(page, "#/models")
            page.get_by_role("heading", name="Models", level=1).wait_for()
            page.get_by_role("button", name="Add a model").first.wait_for()
            visit.take(page, "models")


@state("Before the first question")
def _start(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.small, "#/chat") as page:
            page.get_by_role("list", name="Questions to try").wait_for()
            visit.take(page)


@state("The first answer, and what is offered after it")
def _first_answer(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.small, "#/chat") as page:
            choose(page, DEMO)
            ask(page, "What is a rainbow?")
            page.get_by_text("words/s").wait_for()
            visit.take(page)
            page.get_by_role("button", name="Use it from your app").click()
            dialog = page.get_by_role("dialog", name="Use it from your app")
            dialog.get_by_label("App", exact=True).wait_for()
            visit.take(page, "use-it")


@state("An answer with code, a table and a long line; an image; reasoning")
def _answers(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.house, "#/chat") as page:
            choose(page, answers.MODEL)
            picture: Any = {"name": "birds.png", "mimeType": "image/png", "buffer": png(640, 400)}
            page.locator(".composer input[type=file]").first.set_input_files([picture])
            page.get_by_role("button", name="Show picture").wait_for()
            page.get_by_role("textbox", name="Message").fill(answers.EVERYTHING)
            visit.take(page, "asking")
            ask(page, answers.EVERYTHING)
            answered(page, 1)
            page.locator(".hljs-keyword").first.wait_for()
            to_top(page)
            visit.take(page)
            ask(page, answers.THINKING)
            answered(page, 2)
            page.get_by_text(re.compile("^Thought")).last.click()
            ask(page, answers.CALLING)
            answered(page, 3)
            visit.take(page, "reasoning", whole=False)


@state("A conversation of 300 messages, among others")
def _long(all_of_them: Gateways, shots: Shots) -> None:
    now = int(time.time() * 1000)
    day = 86_400_000
    file = answers.export(
        answers.conversation("How do I count to one hundred and fifty?", 150, now),
        answers.conversation("Which bread bakes well in a small oven?", 2, now - day),
        answers.conversation("A letter to the school, about the trip in October", 3, now - 3 * day),
        answers.conversation("Why is the sky blue?", 1, now - 40 * day),
    )
    for visit in shots:
        with at(visit, all_of_them.house, "#/chat") as page:
            import_file(page, file, phone=visit.phone)
            page.locator(".conversation").get_by_role("link").first.click()
            page.get_by_text("And what about number 150?").first.wait_for()
            visit.take(page, whole=False)
            if page.get_by_role("searchbox", name="Search conversations").is_hidden():
                show_list(page, phone=visit.phone)
                visit.take(page, "list", whole=False)


@state("Settings of a conversation")
def _chat_settings(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.house, "#/chat") as page:
            if visit.phone:
                more(page, "Settings of this conversation")
            else:
                page.get_by_role("button", name=re.compile("^Settings of this")).click()
            page.get_by_label("Temperature").wait_for()
            visit.take(page)


@state("Choosing a model")
def _picker(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.house, "#/chat") as page:
            page.get_by_role("button", name="Model:").click()
            page.get_by_role("listbox", name="Model").get_by_role("option").first.wait_for()
            visit.take(page)


@state("Go to: the switcher; and a phone's menu")
def _menu(all_of_them: Gateways, shots: Shots) -> None:
    for visit in shots:
        with at(visit, all_of_them.house, "#/models") as page:
            if visit.phone:
                page.get_by_role("button", name="Open the menu").click()
                page.get_by_role("dialog", name="Menu").wait_for()
                visit.take(page, "phone", whole=False)
                page.keyboard.press("Escape")
            page.keyboard.press("Control+k")
            page.get_by_role("dialog").get_by_role("option").first.wait_for()
            visit.take(page, whole=False)
