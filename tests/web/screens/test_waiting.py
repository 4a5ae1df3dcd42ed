"""What a person is told while an answer is waited for: how much is loaded, how much is read."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.harness import FAKE, fake_model
from tests.web.axe import violations
from tests.web.upstream import Upstream, upstream
from tests.web.visitors import Box, OpenPage

pytestmark = pytest.mark.slow

_IS_MORE = """first => Number(
  /(\\d+)%/.exec(document.querySelector(".waiting").textContent)[1]) > first"""
#: Bytes of the file of a model that is loaded for minutes.
WEIGHTS = 8 * 2**30


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Upstream]:
    with upstream() as told:
        yield told


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {"llama_server": str(FAKE)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, elsewhere: Upstream) -> dict[str, Any]:
    loading = fake_model(tmp_path_factory.mktemp("models"), reads=0.05, never_healthy=1)
    with Path(loading["params"]["model"]).open("r+b") as file:
        file.truncate(WEIGHTS)  # of which the disk has nothing
    return {"loading": loading, "reading": {"url": elsewhere.url, "modelName": "scripted"}}


def ask(page: Page, model: str, question: str) -> Locator:
    """Ask a model; what is said of the answer that is waited for."""
    page.get_by_role("button", name="Model:").click()
    page.get_by_role("option", name=model).click()
    page.get_by_role("textbox", name="Message").fill(question)
    page.get_by_role("button", name="Send").click()
    return page.get_by_role("article", name="Answer").locator(".waiting").get_by_role("status")


def percent(place: Locator) -> int:
    """The percent that is told of there, as soon as it is."""
    expect(place).to_have_text(re.compile(r"\d+%"))
    found = re.search(r"(\d+)%", place.inner_text())
    assert found
    return int(found[1])


def test_percent_of_a_loading_model_is_shown(open_page: OpenPage, box: Box) -> None:
    page = open_page(key=box.plain)
    told = ask(page, "loading", "Are you there?")
    expect(told).to_have_text(re.compile(r"^Loading loading, \d+%$"))
    first = percent(told)
    page.wait_for_function(_IS_MORE, arg=first)
    assert percent(page.get_by_role("button", name="Model: loading")) >= first
    expect(page).to_have_title(re.compile(r"^loading \d+% · Chat"))
    assert violations(page, "main") == []
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("article", name="Answer")).to_contain_text("Stopped")


def test_percent_of_a_prompt_being_read_is_shown(
    open_page: OpenPage, box: Box, elsewhere: Upstream
) -> None:
    half, whole = threading.Event(), threading.Event()
    elsewhere.answer("Long?", progress(50), half, progress(150), whole, "Long enough.")
    page = open_page(key=box.plain)
    told = ask(page, "reading", "Long?")
    expect(told).to_have_text("Reading the prompt, 25%")
    half.set()
    expect(told).to_have_text("Reading the prompt, 75%")
    whole.set()
    expect(page.get_by_role("article", name="Answer")).to_contain_text("Long enough.")
    expect(told).to_have_count(0)


def progress(read: int) -> dict[str, Any]:
    """An event as llama-server sends it while it reads a prompt of 200 tokens."""
    told = {"total": 200, "cache": 0, "processed": read, "time_ms": 9}
    choice = {"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}
    return {"object": "chat.completion.chunk", "choices": [choice], "prompt_progress": told}
