"""The screen of models: what is in memory, entries, personalities, adding, against the gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from axe import violations
from harness import DEMO, DEMO_GGUF, wait_until
from hub_server import HubServer, Repo, hub_server
from playwright.sync_api import Locator, Page, expect
from tiny_model import write_tiny_model

if TYPE_CHECKING:
    from visitors import Box, OpenPage

pytestmark = pytest.mark.slow

REPOSITORY = "me/small-GGUF"
expect.set_options(timeout=20_000)  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``llm_storage``: a file that has an entry, one that has none, and one that is cut off."""
    folder = tmp_path_factory.mktemp("LLMs")
    write_tiny_model(folder / "tiny.gguf")
    whole = (folder / "tiny.gguf").read_bytes()
    (folder / "found-F32.gguf").write_bytes(whole)
    (folder / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    def tiny(**more: Any) -> dict[str, Any]:
        return {"params": {"model": "tiny.gguf", "ctxSize": 512, "threads": 1}, **more}

    return {
        DEMO: {
            "params": {"model": DEMO_GGUF, "threads": 2, "ctxSize": 2048},
            "setParams": {"temperature": 0, "max_tokens": 8},
            "personalities": {"teacher": "You are a geography teacher."},
        },
        "tiny": tiny(ttl="1h"),
        "edited": tiny(
            env={"ANY_NAME": "not told"}, params={"model": "tiny.gguf", "instruct": True}
        ),
        "contested": tiny(),
        "cut": {"params": {"model": "cut.gguf", "ctxSize": 512}},
        "elsewhere": {"url": "http://127.0.0.1:9", "key": "not-told"},
    }


@pytest.fixture(scope="module")
def hub(storage: Path) -> Iterator[HubServer]:
    model = (storage / "tiny.gguf").read_bytes()
    with hub_server() as server:
        server.repos[REPOSITORY] = Repo(
            {"small-F32.gguf": model + bytes(2**23), "small-Q8_0.gguf": model}
        )
        yield server


@pytest.fixture(scope="module")
def settings(storage: Path, hub: HubServer) -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hub.environ.items():
            patch.setenv(name, value)
        patch.setenv("HF_TOKEN_PATH", "/nowhere")
        yield {"llm_storage": str(storage)}


@pytest.fixture
def page(open_page: OpenPage, box: Box) -> Page:
    return open_page("#/models", key=box.admin)


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name, exact=True)


def at(page: Page, *rest: str) -> None:
    page.evaluate("path => { location.hash = path }", "/".join(("#/models", *rest)))


def button(page: Page | Locator, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def test_load_pin_and_unload(page: Page, box: Box) -> None:
    tiny = card(page, "tiny")
    expect(tiny).to_contain_text("not loaded")
    button(tiny, "Load").click()
    expect(tiny.locator(".state.ready")).to_have_text("loaded")
    expect(tiny).to_contain_text("in 1 h")  # its ttl
    bar = page.get_by_role("img", name=re.compile("^Memory of RAM: tiny "))
    expect(bar).to_be_visible()
    button(tiny, "Pin").click()
    expect(tiny).to_contain_text("pinned")
    assert box.ask("GET", "/admin/models/tiny")["pinned"] is True
    button(tiny, "Unpin").click()
    expect(button(tiny, "Pin")).to_be_visible()
    assert "pinned" not in box.ask("GET", "/admin/models/tiny")
    button(tiny, "Unload").click()
    expect(tiny.locator(".state.unloaded")).to_have_text("not loaded")
    assert box.ask("GET", "/models?loaded=true") == []


def test_filters(page: Page) -> None:
    page.get_by_label("Filter by name").fill("CONT")
    expect(page.get_by_role("article")).to_have_count(1)
    expect(page.get_by_text("1 of ")).to_be_visible()
    page.get_by_label("Filter by name").fill("")
    page.get_by_label("Show").select_option("Elsewhere")
    expect(page.get_by_role("article")).to_have_count(1)
    expect(card(page, "elsewhere")).to_be_visible()


def test_a_failed_model_shows_its_log(page: Page) -> None:
    button(card(page, "cut"), "Load").click()
    expect(card(page, "cut").locator(".state.failed")).to_be_visible()
    card(page, "cut").get_by_role("link", name="cut").click()
    expect(page.get_by_label("Log of cut")).to_contain_text("cut.gguf")
    page.get_by_role("link", name="Log", exact=True).click()
    expect(page.get_by_role("main")).to_contain_text("start 1 of cut")


def test_the_form_saves_what_was_changed_and_nothing_else(page: Page, box: Box) -> None:
    before = box.ask("GET", "/admin/models/edited")
    at(page, "edited", "settings")
    page.get_by_label("Temperature").fill("many")
    expect(page.get_by_text("This must be a number.")).to_be_visible()
    expect(button(page, "Save")).to_be_disabled()
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Other names").fill("one\ntwo")
    page.get_by_label("Pinned").check()
    expect(page.get_by_text("3 changes, not saved.")).to_be_visible()
    button(page, "As JSON").click()
    shown = json.loads(page.get_by_label("The entry edited as JSON").input_value())
    assert shown["env"] == {"ANY_NAME": "***"}
    button(page, "As a form").click()
    button(page, "Save").click()
    expect(page.get_by_text("No change yet.")).to_be_visible()
    params = {**before["params"], "temperature": 0.5}
    after = {**before, "params": params, "aliases": ["one", "two"], "pinned": True}
    assert box.ask("GET", "/admin/models/edited") == after == shown


def test_what_the_gateway_refuses_stands_beside_its_field(page: Page) -> None:
    at(page, "edited", "settings")
    page.get_by_label("Other names").fill(DEMO)
    button(page, "Save").click()
    field = page.locator(".schema-field", has=page.get_by_label("Other names"))
    expect(field.locator(".schema-problem")).to_be_visible()
    button(page, "Discard changes").click()
    page.get_by_label("File", exact=False).first.fill("/etc/passwd")
    button(page, "Save").click()
    expect(page.get_by_role("alert")).to_contain_text("File can't be set over HTTP")
    page.get_by_text("Advanced", exact=True).click()
    expect(page.get_by_label("More arguments")).to_be_disabled()


def test_two_who_write_at_a_time(page: Page, box: Box) -> None:
    at(page, "contested", "settings")
    page.get_by_label("Description").fill("mine")
    box.ask("PATCH", "/admin/models/contested", {"params": {"topK": 7}})
    button(page, "Save").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Somebody else changed this entry meanwhile")
    expect(alert).to_contain_text("params.topK")
    button(page, "Put my changes over it").click()
    button(page, "Save").click()
    expect(page.get_by_text("No change yet.")).to_be_visible()
    entry = box.ask("GET", "/admin/models/contested")
    assert (entry["description"], entry["params"]["topK"]) == ("mine", 7)


def test_a_personality_is_tried_and_then_used(page: Page, box: Box) -> None:
    def asked() -> tuple[str, int]:
        messages = [{"role": "user", "content": "Who are you?"}]
        body = {"model": f"{DEMO}:teacher", "messages": messages}
        answer = box.ask("POST", "/v1/chat/completions", body)
        return answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"]

    before = asked()
    at(page, DEMO, "personalities")
    text = "You are the captain of a pirate ship. Begin every answer with the word Ahoy."
    page.get_by_label("System prompt").fill(text)
    page.get_by_label("And the saved one beside it").check()
    button(page, "Ask").click()
    answers = page.locator(".model-answer[aria-busy=false] .answer-text")
    expect(answers).to_have_count(2)
    tried, saved = answers.all_inner_texts()
    assert tried.strip()
    assert saved.strip()
    assert tried != saved
    assert asked() == before  # nothing is saved yet
    button(page, "Save").click()
    expect(page.get_by_text("teacher is saved: the next answer uses it.")).to_be_visible()
    after = asked()
    assert after[0] != before[0]
    assert after[1] > before[1]


def test_personalities_are_made_renamed_and_removed(page: Page, box: Box) -> None:
    at(page, "contested", "personalities")
    button(page, "Add a personality").click()
    page.get_by_label("Name", exact=True).fill("first")
    page.get_by_label("System prompt").fill("A text.")
    button(page, "Save").click()
    expect(button(page, "first")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("renamed")
    page.get_by_text("More than a text").click()
    page.get_by_label("Reasoning").fill("false")
    button(page, "Save").click()
    expect(button(page, "renamed")).to_be_visible()
    found = box.ask("GET", "/admin/models/contested")["personalities"]
    assert found == {"renamed": {"prompt": "A text.", "reasoning": False}}
    button(page, "Remove").last.click()
    button(page.get_by_role("dialog"), "Remove").click()
    expect(page.get_by_text("None yet.", exact=False)).to_be_visible()
    assert "personalities" not in box.ask("GET", "/admin/models/contested")


def test_add_from_storage_and_remove(page: Page, box: Box, storage: Path) -> None:
    button(page, "Add a model").click()
    page.get_by_label("Name: found-F32.gguf").fill("added")
    button(page, "Add added").click()
    expect(page.get_by_text("added is added, and can be used.")).to_be_attached()
    page.keyboard.press("Escape")
    expect(card(page, "added")).to_be_visible()
    assert box.ask("GET", "/admin/models/added")["params"]["model"] == "found-F32.gguf"
    at(page, "added")
    button(page, "Remove").click()
    button(page.get_by_role("dialog"), "Remove added").click()
    expect(card(page, "tiny")).to_be_visible()
    expect(card(page, "added")).to_have_count(0)
    assert (storage / "found-F32.gguf").exists()


def test_add_from_another_server(page: Page, box: Box) -> None:
    button(page, "Add a model").click()
    button(page, "From another server").click()
    page.get_by_label("Name", exact=True).fill("rented")
    page.get_by_label("Address").fill("http://127.0.0.1:9/v1")
    page.get_by_label("Its key").fill("a-secret")
    button(page, "Add").click()
    expect(card(page, "rented")).to_be_visible()
    entry = {"url": "http://127.0.0.1:9/v1", "key": "***"}
    assert box.ask("GET", "/admin/models/rented") == entry


def come(storage: Path) -> int:
    """Bytes of what is being fetched."""
    return sum(file.stat().st_size for file in (storage / "me").rglob("*") if file.is_file())


def test_pull_with_progress(page: Page, box: Box, hub: HubServer, storage: Path) -> None:
    hub.holds += [2**22, 2**20]  # so many bytes come, and no more until it is stopped
    button(page, "Add a model").click()
    button(page, "From the hub").click()
    page.get_by_label("Repository").fill(REPOSITORY)
    button(page, "See what there is").click()
    button(page, "Fetch F32").click()
    pull = page.locator(".pull", has_text=REPOSITORY).first  # the newest
    expect(pull.get_by_role("meter")).to_be_visible()
    wait_until(lambda: come(storage) >= 2**21, 20, "something of the file")
    button(pull, "Stop").click()
    expect(pull).to_contain_text("stopped")
    button(pull, "Go on").click()
    meter = pull.get_by_role("meter")  # from where it was stopped
    expect(meter).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]\d*$"))
    button(pull, "Stop").click()
    button(pull, "Go on").click()
    expect(page.locator(".pull.done")).to_contain_text("in models.json as")
    name = box.ask("GET", "/admin/pulls")["pulls"][-1]["name"]
    expect(card(page, name)).to_be_visible()
    page.locator(".pull.done").get_by_role("button", name="Clear").click()
    expect(page.locator(".pull.done")).to_have_count(0)


def test_broken_and_read_only(page: Page, box: Box) -> None:
    file = box.served.root / "p/data/models.json"
    good = file.read_text()
    try:
        file.write_text(good[:-20])
        expect(page.get_by_role("alert")).to_contain_text("models.json is broken")
    finally:
        file.write_text(good)
    expect(page.get_by_text("models.json is broken")).to_have_count(0)


def test_what_axe_finds(page: Page) -> None:
    expect(card(page, "tiny")).to_be_visible()
    assert violations(page, "main") == []
    for tab, sign in (
        (None, "What it is"),
        ("settings", "Context and memory"),
        ("personalities", "Try it"),
        ("log", DEMO),
    ):
        at(page, DEMO, *([tab] if tab else []))
        expect(page.get_by_role("main").get_by_text(sign).first).to_be_visible()
        assert violations(page, "main") == [], tab
    at(page)
    button(page, "Add a model").click()
    for way in ("From this machine", "From the hub", "From another server"):
        button(page, way).click()
        assert violations(page, "main") == [], way
