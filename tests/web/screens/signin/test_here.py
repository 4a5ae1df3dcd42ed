"""Coming in at the gateway's own page: by a link, by a key."""

from __future__ import annotations

import contextlib
import re
import urllib.error

import pytest
from playwright.sync_api import Page, expect

from tests.chromium import PATIENCE
from tests.web import axe
from tests.web.screens.signin.attempts import attempt, inside, said
from tests.web.visitors import Box, OpenPage

pytestmark = pytest.mark.slow
expect.set_options(timeout=PATIENCE)


WRONG = "llmgw_" + "x" * 43


def test_link_of_the_first_start_signs_in(open_page: OpenPage, box: Box) -> None:
    page = open_page("#/models")
    page.get_by_label("API key").wait_for()
    page.goto(f"{box.url}/#key={box.admin}")
    inside(page)
    assert page.url == f"{box.url}/#/chat"
    page.reload()  # it is kept in this tab
    inside(page)
    page.go_back()  # and nowhere in the history
    assert box.admin not in page.url
    assert page.evaluate("key => JSON.stringify(localStorage).includes(key)", box.admin) is False
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").wait_for()
    assert page.evaluate("key => JSON.stringify(sessionStorage).includes(key)", box.admin) is False


def test_a_key_is_kept_if_asked(open_page: OpenPage, box: Box) -> None:
    page = open_page()
    assert axe.violations(page) == []
    page.get_by_label("Keep the key").check()
    attempt(page, key=f" {box.admin}\n")
    inside(page)
    other_tab = page.context.new_page()
    other_tab.goto(box.url)
    inside(other_tab)
    other_tab.get_by_role("button", name="Sign out").click()
    assert page.evaluate("key => JSON.stringify(localStorage).includes(key)", box.admin) is False


def test_a_kept_key_outlives_what_fails(open_page: OpenPage, box: Box) -> None:
    page = open_page()
    page.get_by_label("Keep the key").check()
    attempt(page, key=box.admin)
    inside(page)
    is_kept = "key => JSON.stringify(localStorage).includes(key)"
    # A gateway that can't be reached for a while,
    page.route("**/v1/models", lambda route: route.abort())
    page.goto("about:blank")
    page.goto(box.url)
    page.get_by_role("alert").wait_for()
    expect(page.get_by_label("Keep the key")).to_be_checked()
    page.unroute("**/v1/models")
    attempt(page)
    inside(page)
    assert page.evaluate(is_kept, box.admin)
    # and a link with a key that has been revoked since.
    page.goto("about:blank")
    page.goto(f"{box.url}/#key={WRONG}")
    said(page, f"The gateway at {box.url} doesn't know this key")
    assert page.evaluate(is_kept, box.admin)
    attempt(page)
    inside(page)
    assert page.evaluate(is_kept, box.admin)


def test_wrong_keys_are_told_and_not_kept(open_page: OpenPage, box: Box) -> None:
    page = open_page(f"#key={WRONG}")
    said(page, f"The gateway at {box.url} doesn't know this key")
    assert WRONG not in page.url
    assert axe.violations(page) == []
    revoked = box.ask("POST", "/admin/keys", {"name": "gone"})
    box.ask("DELETE", f"/admin/keys/{revoked['id']}")
    attempt(page, key=revoked["key"])
    said(page, "This key has been revoked")
    # After twenty in a minute none is looked at any more.
    for _ in range(30):
        with contextlib.suppress(urllib.error.HTTPError):
            box.ask("GET", "/v1/models", key=WRONG)
    attempt(page, key=WRONG)
    note = said(page, "Too many wrong keys came from this device")
    expect(note.get_by_role("timer")).to_have_text(re.compile(r"Wait \d+ s"))
    # Which keeps nobody out who has a right one.
    attempt(page, key=box.plain)
    inside(page)


def test_key_without_rights_sees_its_screens_only(plain_page: Page) -> None:
    screens = plain_page.get_by_role("navigation", name="Screens").get_by_role("link")
    expect(screens).to_have_text(["Chat", "Usage"])
    plain_page.evaluate("() => { location.hash = '#/keys' }")
    plain_page.get_by_role("heading", name="This screen is for admin keys").wait_for()
    assert axe.violations(plain_page) == []
    plain_page.get_by_role("button", name="Sign in with another key").click()
    plain_page.get_by_label("API key").wait_for()


def test_key_revoked_meanwhile_is_asked_for_again(open_page: OpenPage, box: Box) -> None:
    made = box.ask("POST", "/admin/keys", {"name": "for a while"})
    page = open_page(key=made["key"])
    typed = page.get_by_role("main").get_by_role("textbox").last
    typed.fill("What I have written")
    box.ask("DELETE", f"/admin/keys/{made['id']}")
    page.get_by_text("Your key no longer opens this box.").wait_for()
    attempt(page, key=box.plain)
    expect(typed).to_be_visible()
    expect(typed).to_have_value("What I have written")
