"""The form of an entry of models.json, and its personalities, against the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.chromium import PATIENCE
from tests.harness import DEMO, DEMO_GGUF, Served
from tests.tiny_model import write_tiny_model
from tests.web.axe import violations
from tests.web.model_cards import at, button, card, control, field, save, settings_of, tiny, unfold
from tests.web.visitors import Box, OpenPage

pytestmark = pytest.mark.slow

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("LLMs")
    write_tiny_model(folder / "tiny.gguf")
    return {"llm_storage": str(folder)}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {
        DEMO: {
            "params": {"model": DEMO_GGUF, "threads": 2, "ctxSize": 2048},
            "setParams": {"temperature": 0, "max_tokens": 8},
            "personalities": {"teacher": "You are a geography teacher."},
        },
        "edited": {
            "params": {"model": "tiny.gguf", "instruct": True},
            "env": {"ANY_NAME": "not told"},
        },
        "contested": tiny(),
        "elsewhere": {"url": "http://127.0.0.1:9", "key": "not-told"},
    }


@pytest.fixture
def page(open_page: OpenPage, box: Box) -> Page:
    return open_page("#/models", key=box.admin)


def test_what_people_set_is_in_sight_and_the_rest_is_folded(page: Page) -> None:
    form = settings_of(page, DEMO)
    for label in ("Display name", "File", "Context", "Layers on GPUs", "Parallel requests"):
        expect(control(form, label)).to_be_visible()
    expect(form).to_contain_text("teacher")
    expect(control(form, "Context")).to_have_value("2048")
    expect(control(form, "Parallel requests")).to_have_attribute("placeholder", "1 by default")
    expect(control(form, "Threads")).to_be_hidden()
    expect(form.locator("summary", has_text="Memory and speed")).to_contain_text("1 set")
    unfold(form, "Memory and speed")
    expect(control(form, "Threads")).to_have_value("2")
    # Of a model that other servers have, what they want.
    form = settings_of(page, "elsewhere")
    expect(control(form, "Servers")).to_have_value("http://127.0.0.1:9")
    expect(control(form, "Key for the servers")).to_have_value("***")
    expect(control(form, "File")).to_have_count(0)


def test_the_form_saves_what_was_changed_and_nothing_else(page: Page, box: Box) -> None:
    before = box.ask("GET", "/admin/models/edited")
    form = settings_of(page, "edited")
    unfold(form, "Answers", "Names and lists", "When it is in memory")
    control(form, "Temperature").fill("many")
    expect(form.get_by_text("This must be a number.")).to_be_visible()
    expect(button(form, "Save")).to_be_disabled()
    control(form, "Temperature").fill("0.5")
    control(form, "Other names").fill("one\ntwo")
    control(form, "Pinned").check()
    expect(form.get_by_text("3 changes, not saved.")).to_be_visible()
    button(form, "As JSON").click()
    shown = json.loads(control(form, "The entry edited as JSON").input_value())
    assert shown["env"] == {"ANY_NAME": "***"}
    button(form, "As a form").click()
    after = save(form, box, "edited")
    params = {**before["params"], "temperature": 0.5}
    assert after == {**before, "params": params, "aliases": ["one", "two"], "pinned": True}
    assert after == shown


def test_a_change_is_marked_and_can_be_put_back(page: Page, box: Box) -> None:
    before = box.ask("GET", f"/admin/models/{DEMO}")
    form = settings_of(page, DEMO)
    control(form, "Context").fill("1024")
    control(form, "Description").fill("A small one.")
    unfold(form, "Memory and speed")
    control(form, "Threads").fill("")
    folded = form.locator("summary", has_text="Memory and speed")
    expect(folded).to_contain_text("1 changed")
    expect(form.locator(".schema-field.changed")).to_have_count(3)
    # Nothing is lost by a look at something else.
    at(page, DEMO, "log")
    expect(page.get_by_role("region", name=f"Log of {DEMO}")).to_be_visible()
    form = settings_of(page, DEMO)
    expect(form.get_by_text("3 changes, not saved.")).to_be_visible()
    button(form, "Put back Context").click()
    expect(control(form, "Context")).to_have_value("2048")
    expect(form.get_by_text("2 changes, not saved.")).to_be_visible()
    button(form, "Discard changes").click()
    expect(form.get_by_text("No change yet.")).to_be_visible()
    expect(form.locator(".schema-field.changed")).to_have_count(0)
    assert box.ask("GET", f"/admin/models/{DEMO}") == before


def test_what_is_no_json_is_not_saved_as_if_it_was_not_there(page: Page) -> None:
    form = settings_of(page, "contested")
    control(form, "Description").fill("with half a bias")
    unfold(form, "Answers")
    control(form, "Token biases").fill('{"12": ')
    expect(field(form, "Token biases").locator(".schema-problem")).to_contain_text("no JSON")
    expect(button(form, "Save")).to_be_disabled()
    expect(form).to_contain_text("Mend what is marked first.")
    button(form, "Discard changes").click()
    expect(control(form, "Token biases")).to_have_value("")
    button(form, "As JSON").click()
    control(form, "The entry contested as JSON").fill("[]")
    expect(form).to_contain_text("An entry is a JSON object")
    expect(button(form, "Save")).to_be_disabled()
    button(form, "Discard changes").click()


def test_everything_the_gateway_refuses_stands_beside_its_field(page: Page) -> None:
    form = settings_of(page, "contested")
    unfold(form, "Names and lists", "Kind of model")
    control(form, "Other names").fill(DEMO)
    control(form, "For embeddings").check()
    control(form, "For reranking").check()
    unfold(form, "Names and lists", "Kind of model")  # folds them
    expect(control(form, "Other names")).to_be_hidden()
    button(form, "Save").click()
    expect(form.get_by_role("alert")).to_contain_text("Other names")
    expect(control(form, "Other names")).to_be_visible()  # it has opened by itself
    expect(control(form, "Other names")).to_be_focused()
    expect(field(form, "Other names").locator(".schema-problem")).to_be_visible()
    assert violations(page, "main") == []
    button(form, "Discard changes").click()
    expect(form.locator(".schema-problem")).to_have_count(0)


def test_setting_that_is_not_for_http_is_told(page: Page) -> None:
    form = settings_of(page, "edited")
    control(form, "File").fill("/etc/passwd")
    button(form, "Save").click()
    expect(form.get_by_role("alert")).to_contain_text("File can't be set over HTTP")
    button(form, "Discard changes").click()
    unfold(form, "Advanced")
    expect(control(form, "Extra arguments")).not_to_be_editable()
    expect(field(form, "Extra arguments")).to_contain_text("Not over HTTP")


def test_second_writer_is_told_of_the_first(page: Page, box: Box) -> None:
    form = settings_of(page, "contested")
    control(form, "Description").fill("mine")
    box.ask("PATCH", "/admin/models/contested", {"params": {"topK": 7}})
    button(form, "Save").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Somebody else changed this entry meanwhile")
    expect(alert).to_contain_text("params.topK")
    button(page, "Put my changes over it").click()
    entry = save(form, box, "contested")
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


def test_an_unsaved_personality_is_kept(page: Page, box: Box) -> None:
    saved = box.ask("GET", f"/admin/models/{DEMO}")["personalities"]["teacher"]
    prompt = page.get_by_label("System prompt")
    at(page, DEMO, "personalities")
    prompt.fill("Not saved yet.")
    expect(button(page, "teacher Not saved")).to_be_visible()
    button(page, "Add a personality").click()
    expect(prompt).to_have_value("")
    at(page, DEMO, "log")
    expect(page.get_by_role("region", name=f"Log of {DEMO}")).to_be_visible()
    at(page, DEMO, "personalities")
    expect(prompt).to_have_value("Not saved yet.")
    assert violations(page, "main") == []
    button(page, "Discard changes").click()
    expect(prompt).to_have_value(saved)
    expect(button(page, "teacher")).to_be_visible()


@pytest.mark.parametrize(
    ("tab", "sign"), [("", "What it is"), ("personalities", "Try it"), ("log", DEMO)]
)
def test_axe_finds_nothing_in_a_tab(page: Page, tab: str, sign: str) -> None:
    at(page, DEMO, *([tab] if tab else []))
    expect(page.get_by_role("main").get_by_text(sign).first).to_be_visible()
    assert violations(page, "main") == []


def test_axe_finds_nothing_in_the_form(page: Page) -> None:
    form = settings_of(page, DEMO)
    assert violations(page, "main") == []
    for summary in form.locator("summary").all():
        summary.click()
    control(form, "Temperature").fill("many")
    assert violations(page, ".entry-form") == []
    button(form, "Discard changes").click()


# --- where the file can't be written -----------------------------------------------------------


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A first start: its models.json belongs to the program."""
    served = Served(tmp_path_factory.mktemp("demo"))
    try:
        yield Box(served, served.key, "")
    finally:
        served.stop()


@pytest.fixture
def reader(browser: Browser, box: Box, demonstration: Box) -> Iterator[Page]:
    """Somebody at its list of models (``box``: the page is built)."""
    opened = OpenPage(browser, demonstration)
    yield opened("#/models", key=demonstration.admin)
    opened.close()
    assert opened.complaints == []


def test_read_only_file_is_told(reader: Page, demonstration: Box) -> None:
    [name] = demonstration.ask("GET", "/models")
    expect(reader.get_by_text("These entries can't be changed from here")).to_contain_text(
        "llm-gateway init DIR"
    )
    expect(button(reader, "Add a model")).to_be_disabled()
    expect(card(reader, name)).to_be_visible()
    expect(button(card(reader, name), "Pin")).to_have_count(0)
    form = settings_of(reader, name)
    expect(reader.get_by_text("These entries can't be changed from here")).to_be_visible()
    file = control(form, "File")
    expect(file).not_to_be_editable()
    assert file.input_value().endswith(".gguf")  # but it can be read, and copied
    expect(file).to_be_enabled()
    expect(button(form, "Save")).to_have_count(0)
    for summary in form.locator("summary").all():
        summary.click()
    places = form.get_by_role("textbox").or_(form.get_by_role("checkbox"))
    for place in [*places.all(), *form.get_by_role("combobox").all()]:
        expect(place).not_to_be_editable()
    assert violations(reader, "main") == []
    button(form, "As JSON").click()
    expect(form.get_by_label(f"The entry {name} as JSON")).not_to_be_editable()
    at(reader, name, "personalities")
    expect(reader.get_by_label("System prompt").first).not_to_be_editable()
    expect(button(reader, "Save")).to_have_count(0)
