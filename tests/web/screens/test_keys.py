"""The screen of keys, in Chromium: make one and use it, change it, revoke it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import openai
import pytest
from playwright.sync_api import Page, expect

from tests.harness import DEMO, DEMO_GGUF
from tests.web.axe import violations

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    personalities = {
        "geography teacher": "You are a geography teacher.",
        "pirate": "You are a pirate.",
    }
    return {DEMO: {"params": {"model": DEMO_GGUF, "threads": 2}, "personalities": personalities}}


@pytest.fixture
def keys_page(open_page: Any, box: Any) -> Page:
    page: Page = open_page("#/keys", key=box.admin)
    page.get_by_role("heading", name="Keys", level=1).wait_for()
    return page


def ask(box: Any, key: str) -> Any:
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key=key, max_retries=0) as client:
        return client.chat.completions.create(
            model=DEMO, messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )


def test_a_key_is_made_used_limited_changed_and_revoked(keys_page: Page, box: Any) -> None:
    page = keys_page
    page.get_by_role("button", name="Create a key").click()
    form = page.get_by_role("dialog", name="Create a key")
    form.get_by_label("Name", exact=False).first.fill("laptop")
    form.get_by_label("Description").fill("Ada's")
    form.get_by_label("Expires").select_option("30d")
    models = form.get_by_role("group", name="Models")
    models.get_by_label("Only these").check()
    models.get_by_label(DEMO).check()
    personalities = form.get_by_role("group", name="Personalities")
    personalities.get_by_label("Only these").check()
    personalities.get_by_label("pirate").check()
    form.get_by_text("Limits", exact=True).click()
    form.get_by_label("Requests per minute").fill("2")
    assert violations(page, "dialog") == []
    form.get_by_role("button", name="Create a key").click()

    made = page.get_by_role("dialog", name="Your new key: laptop")
    key = made.locator(".key-text code").inner_text()
    assert key.startswith("llmgw_")
    lines = made.get_by_role("region", name="openai for Python, the shell that the program")
    expect(lines).to_contain_text(f"OPENAI_API_KEY={key}")
    expect(lines).to_contain_text(f"OPENAI_BASE_URL={box.url}/v1")
    assert violations(page, "dialog") == []
    made.get_by_label("App", exact=True).select_option("codex")
    made.get_by_text("model_provider").wait_for()
    made.get_by_role("button", name="Copy key").click()
    expect(made.get_by_role("button", name="Copied")).to_be_visible()
    made.get_by_role("button", name="Done").click()
    row = page.get_by_role("row").filter(has_text="laptop")
    used = row.get_by_role("cell").nth(3)
    expect(used).to_have_text("never")  # the lines for it were not asked for with it

    assert ask(box, key).choices
    assert ask(box, key).choices
    with pytest.raises(openai.RateLimitError):
        ask(box, key)

    # It is seen without a reload.
    expect(used.locator("time")).to_have_attribute("title", re.compile(r"\d"), timeout=60_000)
    (kept,) = [one for one in box.ask("GET", "/admin/keys")["keys"] if one["name"] == "laptop"]
    expect(used.locator("time")).to_have_attribute("datetime", kept["lastActivity"], timeout=60_000)
    expect(row).to_contain_text("Requests: 2 per minute")
    expect(row).to_contain_text(DEMO)
    assert key not in page.content()  # never again
    row.get_by_role("button", name="Change laptop").click()
    form = page.get_by_role("dialog", name="Change the key laptop")
    form.get_by_label("Requests per minute").fill("")
    form.get_by_label("Longest answer, in tokens").fill("5")
    form.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("Longest answer: 5 tokens")
    expect(row).not_to_contain_text("per minute")
    assert ask(box, key).choices
    (kept,) = [one for one in box.ask("GET", "/admin/keys")["keys"] if one["name"] == "laptop"]
    assert kept["limits"] == {"max_tokens": 5}
    assert (kept["models"], kept["personalities"]) == ([DEMO], ["pirate"])
    life = datetime.fromisoformat(kept["expires"]) - datetime.fromisoformat(kept["created"])
    assert abs(life - timedelta(days=30)) < timedelta(minutes=5)

    row.get_by_role("button", name="Revoke laptop").click()
    asked = page.get_by_role("dialog", name="Revoke the key laptop?")
    asked.get_by_role("button", name="Revoke", exact=True).click()
    expect(row).to_have_count(0)
    with pytest.raises(openai.AuthenticationError):
        ask(box, key)
    page.get_by_label(re.compile("Show 1 revoked")).check()
    expect(row).to_contain_text("revoked")
    assert violations(page, "main") == []


def test_a_key_for_metrics_is_made_and_does_nothing_else(keys_page: Page, box: Any) -> None:
    page = keys_page
    page.get_by_role("button", name="Create a key").click()
    form = page.get_by_role("dialog", name="Create a key")
    form.get_by_label("Name", exact=False).first.fill("prometheus")
    form.get_by_label("Admin").check()
    expect(form.get_by_label("Only metrics")).to_be_disabled()
    form.get_by_label("Admin").uncheck()
    form.get_by_label("Only metrics").check()
    expect(form.get_by_role("group", name="Models")).to_have_count(0)  # it may use none
    assert violations(page, "dialog") == []
    form.get_by_role("button", name="Create a key").click()
    made = page.get_by_role("dialog", name="Your new key: prometheus")
    expect(made).to_contain_text("Prometheus reads /metrics with it")
    key = made.locator(".key-text code").inner_text()
    made.get_by_role("button", name="Copy key").click()
    made.get_by_role("button", name="Done").click()
    row = page.get_by_role("row").filter(has_text="prometheus")
    expect(row.get_by_role("cell").nth(1)).to_have_text("only metrics")
    with pytest.raises(openai.PermissionDeniedError):
        ask(box, key)


def test_a_key_is_copied_where_the_browser_has_no_clipboard(keys_page: Page) -> None:
    """As by plain http at a name in the home's network."""
    page = keys_page
    page.evaluate("() => { delete Navigator.prototype.clipboard }")
    page.get_by_role("button", name="Create a key").click()
    form = page.get_by_role("dialog", name="Create a key")
    name = form.get_by_label("Name", exact=False).first
    name.fill("phone")
    form.get_by_role("button", name="Create a key").click()
    made = page.get_by_role("dialog", name="Your new key: phone")
    key = made.locator(".key-text code").inner_text()
    made.get_by_role("button", name="Copy key").click()
    expect(made.get_by_role("button", name="Copied")).to_be_focused()
    made.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Create a key").click()
    name.press("Control+V")
    expect(name).to_have_value(key)
    page.keyboard.press("Escape")

    # Where it isn't let do that either, it says so, and the key is selected.
    page.get_by_role("button", name="Create a key").click()
    name.fill("tablet")
    page.evaluate("() => { document.execCommand = () => false }")
    form.get_by_role("button", name="Create a key").click()
    made = page.get_by_role("dialog", name="Your new key: tablet")
    made.get_by_role("button", name="Copy key").click()
    expect(made.get_by_role("alert")).to_have_text("Could not copy. Select it and copy it by hand.")
    key = made.locator(".key-text code").inner_text()
    assert page.evaluate("() => String(getSelection())") == key


def test_a_key_of_one_personality_is_offered_no_other(open_page: Any, box: Any) -> None:
    fields = {"name": "pupil", "personalities": ["geography teacher"]}
    key = box.ask("POST", "/admin/keys", fields)["key"]
    page: Page = open_page(key=key)
    page.get_by_role("button", name="Personality:").click()
    offered = page.get_by_role("listbox").get_by_role("option")
    expect(offered.filter(has_text="geography teacher")).to_have_count(1)
    expect(offered).to_have_count(2)  # and none
    expect(page.get_by_text("pirate")).to_have_count(0)
    with (
        openai.OpenAI(base_url=f"{box.url}/v1", api_key=key, max_retries=0) as client,
        pytest.raises((openai.PermissionDeniedError, openai.NotFoundError)),
    ):
        client.chat.completions.create(
            model=f"{DEMO}:pirate", messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )
    page = open_page("#/keys", key=box.admin)
    row = page.get_by_role("row").filter(has_text="pupil")
    expect(row.get_by_role("cell").nth(1)).to_contain_text("geography teacher")


@pytest.mark.parametrize("size", [(360, 740), (1024, 768)], ids=["phone", "desk"])
def test_the_button_that_makes_a_key_is_in_sight(
    open_page: Any, box: Any, size: tuple[int, int]
) -> None:
    page = open_page("#/keys", box.admin, viewport={"width": size[0], "height": size[1]})
    page.get_by_role("button", name="Create a key").click()
    form = page.get_by_role("dialog", name="Create a key")
    expect(form.get_by_role("button", name="Create a key")).to_be_in_viewport(ratio=1)
    page.keyboard.press("Escape")
    # On a phone, too, all of a key is there without moving sideways.
    row = page.get_by_role("row").filter(has_text="made at the first start")
    expect(row.get_by_text("everything").locator("visible=true")).to_be_in_viewport(ratio=1)
    expect(row.get_by_role("button", name="Revoke admin")).to_be_in_viewport(ratio=1)


def test_what_the_gateway_refuses_is_told_in_the_form(keys_page: Page, box: Any) -> None:
    page = keys_page
    page.get_by_role("button", name="Create a key").click()
    form = page.get_by_role("dialog", name="Create a key")
    form.get_by_label("Name", exact=False).first.fill("no models")
    form.get_by_role("group", name="Models").get_by_label("Only these").check()
    form.get_by_role("button", name="Create a key").click()
    expect(form.get_by_role("alert")).to_contain_text("a list of models needs at least one name")
    page.keyboard.press("Escape")
    expect(form).to_have_count(0)
    row = page.get_by_role("row").filter(has_text="made at the first start")
    row.get_by_role("button", name="Revoke admin").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("admin")  # the last one


def test_a_plain_key_has_no_such_screen(open_page: Any, box: Any) -> None:
    page = open_page("#/keys", key=box.plain)
    expect(page.get_by_text("This screen is for admin keys")).to_be_visible()
    assert page.get_by_role("link", name="Keys", exact=True).count() == 0
    assert page.get_by_role("button", name="Create a key").count() == 0
