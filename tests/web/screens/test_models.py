"""The screen Models: what is in memory, what failed, adding and removing, against the gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.chromium import PATIENCE
from tests.harness import DEMO, DEMO_GGUF, wait_until
from tests.hub_server import HubServer, Repo, hub_server
from tests.tiny_model import write_tiny_model
from tests.web.axe import violations
from tests.web.model_cards import at, button, card, tiny

if TYPE_CHECKING:
    from tests.web.visitors import Box, OpenPage

pytestmark = pytest.mark.slow

REPOSITORY = "me/small-GGUF"
expect.set_options(timeout=PATIENCE)


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
    return {
        DEMO: {
            "params": {"model": DEMO_GGUF, "threads": 2, "ctxSize": 2048},
        },
        "tiny": tiny(ttl="1h"),
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


def test_model_is_loaded_pinned_and_unloaded(page: Page, box: Box) -> None:
    tiny = card(page, "tiny")
    expect(tiny).to_contain_text("not loaded")
    button(tiny, "Load").click()
    expect(tiny.locator(".state.ready")).to_have_text("loaded")
    expect(tiny).to_contain_text("in 1 h")  # its ttl
    bar = page.get_by_role("img", name=re.compile("^Memory of RAM: tiny "))
    expect(bar).to_be_visible()
    # As the frame has it beside it, and the screen System.
    expect(page.locator(".device-head")).to_contain_text(re.compile(r"[\d.]+ of [\d.]+ GiB used"))
    button(tiny, "Pin").click()
    expect(tiny).to_contain_text("pinned")
    assert box.ask("GET", "/admin/models/tiny")["pinned"] is True
    button(tiny, "Unpin").click()
    expect(button(tiny, "Pin")).to_be_visible()
    assert "pinned" not in box.ask("GET", "/admin/models/tiny")
    button(tiny, "Unload").click()
    expect(tiny.locator(".state.unloaded")).to_have_text("not loaded")
    assert box.ask("GET", "/models?loaded=true") == []


def by_tab(page: Page, target: Locator) -> None:
    """Go on with Tab until ``target`` has the focus."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if target.evaluate("place => place === document.activeElement"):
            return
    pytest.fail("nobody comes there with the Tab key")


def test_keyboard_alone_loads_and_unloads(page: Page, box: Box) -> None:
    contested = card(page, "contested")
    expect(button(contested, "Load")).to_be_visible()
    by_tab(page, button(contested, "Load"))
    page.keyboard.press("Enter")
    expect(contested.locator(".state.ready")).to_be_visible()
    expect(button(contested, "Unload")).to_be_focused()  # nobody has to look for it again
    page.keyboard.press("Space")
    expect(contested.locator(".state.unloaded")).to_be_visible()
    expect(button(contested, "Load")).to_be_focused()
    assert "contested" not in box.ask("GET", "/models?loaded=true")
    by_tab(page, contested.get_by_role("link", name="Settings"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("form", name="Settings of contested")).to_be_visible()


def test_filters_leave_the_models_that_match(page: Page) -> None:
    page.get_by_label("Filter by name").fill("CONT")
    expect(page.get_by_role("article")).to_have_count(1)
    expect(page.get_by_text(re.compile(r"^1 of \d+ models$"))).to_be_visible()
    page.get_by_label("Filter by name").fill("")
    page.get_by_label("Show").select_option("Elsewhere")
    expect(page.get_by_role("article")).to_have_count(1)
    expect(card(page, "elsewhere")).to_be_visible()


def test_a_failed_model_shows_its_log(page: Page) -> None:
    button(card(page, "cut"), "Load").click()
    expect(card(page, "cut").locator(".state.failed")).to_be_visible()
    expect(card(page, "cut")).to_contain_text("exited with status 1 while it was loading.")
    card(page, "cut").get_by_role("link", name="See its log").click()
    log = page.get_by_role("region", name="Log of cut")
    expect(log).to_contain_text("start 1 of cut")
    expect(log).to_contain_text("cut.gguf")
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_label("Log of cut")).to_contain_text("cut.gguf")
    assert violations(page, "main") == []


def test_model_is_added_from_storage_and_removed(page: Page, box: Box, storage: Path) -> None:
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


def test_model_is_added_from_another_server(page: Page, box: Box) -> None:
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


@pytest.mark.timeout(600)  # a process each time it goes on
def test_pull_shows_its_progress(page: Page, box: Box, hub: HubServer, storage: Path) -> None:
    hub.holds += [2**22, 2**20]  # so many bytes come, and no more until it is stopped
    button(page, "Add a model").click()
    button(page, "From the hub").click()
    page.get_by_label("Repository").fill(REPOSITORY)
    button(page, "See what there is").click()
    button(page, "Fetch F32").click()
    pull = page.locator(".pull", has_text=REPOSITORY).first  # the newest
    expect(pull.get_by_role("meter")).to_be_visible()
    wait_until(lambda: come(storage) >= 2**21, 60, "something of the file")
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


def test_missing_repository_is_told(page: Page, hub: HubServer) -> None:
    button(page, "Add a model").click()
    button(page, "From the hub").click()
    page.get_by_label("Repository").fill("me/nothing-GGUF")
    button(page, "See what there is").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("me/nothing-GGUF")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.timeout(600)
def test_a_pull_that_fails_says_why_and_goes_on(page: Page, box: Box, hub: HubServer) -> None:
    whole = hub.damage
    hub.damage = lambda path, data: bytes(len(data))
    try:
        button(page, "Add a model").click()
        button(page, "From the hub").click()
        page.get_by_label("Repository").fill(REPOSITORY)
        button(page, "See what there is").click()
        button(page, "Fetch Q8_0").click()
        failed = page.locator(".pull.failed", has_text="Q8_0")
        expect(failed.locator(".schema-problem")).to_contain_text("its hash is another")
    finally:
        hub.damage = whole
    button(failed, "Try again").click()
    done = page.locator(".pull.done", has_text="Q8_0")
    expect(done).to_contain_text("in models.json as")
    name = box.ask("GET", "/admin/pulls")["pulls"][-1]["name"]
    expect(card(page, name)).to_be_visible()


def test_broken_file_is_told(page: Page, box: Box) -> None:
    file = box.served.root / "p/data/models.json"
    good = file.read_text()
    try:
        file.write_text(good[:-20])
        expect(page.get_by_role("alert")).to_contain_text("models.json is broken")
    finally:
        file.write_text(good)
    expect(page.get_by_text("models.json is broken")).to_have_count(0)


def test_axe_finds_nothing_in_the_list(page: Page) -> None:
    expect(card(page, "tiny")).to_be_visible()
    assert violations(page, "main") == []


@pytest.mark.parametrize("way", ["From this machine", "From the hub", "From another server"])
def test_axe_finds_nothing_in_adding(page: Page, way: str) -> None:
    button(page, "Add a model").click()
    button(page, way).click()
    assert violations(page, "dialog") == []
