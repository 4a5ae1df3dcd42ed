"""Coming in: by a link, by a key, to a box elsewhere; and every reason why that may fail."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from gateway.tls import self_signed
from tests.chromium import CERTUTIL, PATIENCE, PROGRAM, chromium, needs_certutil, trust
from tests.harness import Served, project
from tests.web import axe
from tests.web.hosted import answering, hosted
from tests.web.visitors import Box, OpenPage

pytestmark = pytest.mark.slow

expect.set_options(timeout=PATIENCE)
WRONG = "llmgw_" + "x" * 43


@dataclass
class Ports:
    """Where the page is hosted besides, always on loopback."""

    #: Plain, in the same network as the gateways as far as the browser is told.
    home: int
    #: Plain and over TLS, on the internet as far as the browser is told.
    public: int
    secure: int


@dataclass
class World:
    ports: Ports
    browser: Browser

    @property
    def home(self) -> str:
        return f"http://127.0.0.1:{self.ports.home}"

    @property
    def public(self) -> str:
        return f"http://my.pages.example:{self.ports.public}"

    @property
    def secure(self) -> str:
        return f"https://my-app.web.app:{self.ports.secure}"


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {
        "cors": {
            "origins": ["http://127.0.0.1:*", "http://*.pages.example:*", "https://*.web.app:*"]
        }
    }


@pytest.fixture(scope="module")
def models(tiny_model: Path) -> dict[str, Any]:
    return {"tiny": {"params": {"model": str(tiny_model), "ctxSize": 2048, "threads": 1}}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, box: Box) -> Iterator[World]:
    """A browser, and the page where it is hosted elsewhere (`box`: it is built)."""
    if PROGRAM is None:
        pytest.skip("no chromium: apt-get install chromium")
    home = tmp_path_factory.mktemp("home")
    made = self_signed(["my-app.web.app"], home / "ssl")
    if CERTUTIL is not None:
        trust(home, made.chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.private_key)
    with hosted() as at_home, hosted() as public, hosted(context) as secure:
        there = ",".join(f"127.0.0.1:{port}=public" for port in (public, secure))
        with chromium(home, f"--ip-address-space-overrides={there}") as browser:
            yield World(Ports(at_home, public, secure), browser)


@pytest.fixture(scope="module")
def browser(world: World) -> Browser:
    return world.browser


@pytest.fixture(scope="module")
def untrusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with a certificate that the browser doesn't trust."""
    root = tmp_path_factory.mktemp("tls")
    made = self_signed(["box.example", "127.0.0.1"], root / "ssl")
    files = {
        "enabled": True,
        "private_key": str(made.private_key),
        "certificate": str(made.certificate),
        "ca_chain": str(made.chain),
    }
    served = Served(root, "--config", str(project(root / "p", {}, tls=files)))
    try:
        assert served.url.startswith("https://")
        yield served
    finally:
        served.stop()


@pytest.fixture
def visit(world: World) -> Iterator[Any]:
    """``visit(origin)``: the page there, in a browser that has not been there before."""
    contexts: list[BrowserContext] = []

    def go(origin: str) -> Page:
        context = world.browser.new_context()
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(origin)
        return page

    yield go
    for context in contexts:
        context.close()


def attempt(page: Page, address: str | None = None, key: str = "", name: str = "") -> None:
    if address is not None:
        page.get_by_label("Address of the box").fill(address)
    if name:
        page.get_by_label("Name for it").fill(name)
    if key:
        page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def said(page: Page, title: str) -> Any:
    """The diagnosis with that title, once it is there."""
    note = page.get_by_role("alert").filter(has=page.get_by_role("heading", name=title))
    note.wait_for()
    return note


def inside(page: Page) -> None:
    page.get_by_role("navigation", name="Screens").wait_for()


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


# --- at the gateway's own page ---------------------------------------------------------------


def test_the_link_of_a_first_start(open_page: OpenPage, box: Box) -> None:
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


def test_wrong_keys(open_page: OpenPage, box: Box) -> None:
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


def test_a_key_without_rights(plain_page: Page) -> None:
    screens = plain_page.get_by_role("navigation", name="Screens").get_by_role("link")
    expect(screens).to_have_text(["Chat", "Usage"])
    plain_page.evaluate("() => { location.hash = '#/keys' }")
    plain_page.get_by_role("heading", name="This screen is for admin keys").wait_for()
    assert axe.violations(plain_page) == []
    plain_page.get_by_role("button", name="Sign in with another key").click()
    plain_page.get_by_label("API key").wait_for()


def test_a_key_that_is_revoked_meanwhile(open_page: OpenPage, box: Box) -> None:
    made = box.ask("POST", "/admin/keys", {"name": "for a while"})
    page = open_page(key=made["key"])
    typed = page.get_by_role("main").get_by_role("textbox").last
    typed.fill("What I have written")
    box.ask("DELETE", f"/admin/keys/{made['id']}")
    page.get_by_text("Your key no longer opens this box.").wait_for()
    attempt(page, key=box.plain)
    expect(typed).to_be_visible()
    expect(typed).to_have_value("What I have written")


# --- hosted elsewhere ------------------------------------------------------------------------


def test_several_boxes(visit: Any, world: World, box: Box) -> None:
    page = visit(world.home)
    assert axe.violations(page) == []
    attempt(page, "")
    expect(page.get_by_label("Address of the box")).to_have_attribute("aria-invalid", "true")
    # The whole link of a first start does, and what belongs to the API is left out.
    attempt(page, f"{box.url}/v1#key={box.admin}", name="Kitchen")
    inside(page)
    assert page.title() == "Chat · Kitchen"
    page.get_by_role("button", name="Kitchen").click()
    assert axe.violations(page) == []
    page.get_by_role("button", name="Add a box").click()
    local = box.url.replace("127.0.0.1", "localhost")
    attempt(page, local.removeprefix("http://"), key=box.plain)
    inside(page)
    host = local.removeprefix("http://")
    assert page.title() == f"Chat · {host}"
    page.locator(".box-name").click()
    page.get_by_role("button", name="Rename this box").click()
    page.get_by_role("dialog").get_by_label("Name").fill("Attic")
    page.get_by_role("button", name="Rename", exact=True).click()
    page.get_by_role("button", name="Attic").click()
    page.get_by_role("button", name="Kitchen").click()
    page.get_by_role("link", name="Keys").wait_for()  # with its own key, an admin's
    page.reload()
    page.get_by_role("button", name="Kitchen").click()
    page.get_by_role("button", name="Remove this box").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove this box").click()
    page.get_by_role("button", name="Attic").wait_for()
    assert box.admin not in page.evaluate("() => JSON.stringify([{...localStorage}])")


def test_nothing_answers(visit: Any, world: World) -> None:
    page = visit(world.home)
    address = f"http://127.0.0.1:{free_port()}"
    attempt(page, address)
    said(page, f"Nothing answers at {address}")
    assert axe.violations(page) == []
    page.context.set_offline(True)
    attempt(page, "http://box.example:8080")
    said(page, "This device is offline")


def test_a_certificate_that_is_not_trusted(visit: Any, world: World, untrusted: Served) -> None:
    page = visit(world.home)
    attempt(page, untrusted.url)
    note = said(page, f"This browser doesn't trust the certificate of {untrusted.url}")
    link = note.get_by_role("link", name=f"Open {untrusted.url} in a new tab")
    assert link.get_attribute("href") == f"{untrusted.url}/"
    assert axe.violations(page) == []


@needs_certutil
def test_a_page_over_tls_is_not_told_which(visit: Any, world: World, untrusted: Served) -> None:
    """From there plain http can't be tried; so all that it may be is told."""
    page = visit(world.secure)
    address = untrusted.url.replace("127.0.0.1", "box.example")
    attempt(page, address)
    note = said(page, f"No connection to {address}, and the browser doesn't say why")
    expect(note).to_contain_text("It warns of the certificate")
    expect(note).to_contain_text("the browser keeps this page from your local network")


def test_http_where_https_was_tried(visit: Any, world: World, box: Box) -> None:
    page = visit(world.home)
    attempt(page, box.url.replace("http:", "https:"), key=box.plain)
    note = said(page, "speaks http, without TLS")
    note.get_by_role("button", name=f"Use {box.url}").click()
    inside(page)


def test_https_where_http_was_tried(visit: Any, world: World, untrusted: Served) -> None:
    page = visit(world.home)
    attempt(page, untrusted.url.replace("https:", "http:"))
    page.get_by_role("button", name=f"Use {untrusted.url}").click()
    said(page, "This browser doesn't trust the certificate")


def test_an_origin_that_is_not_let_in(visit: Any, world: World, box: Box) -> None:
    origin = f"http://stranger.example:{world.ports.home}"
    page = visit(origin)
    attempt(page, box.url, key=box.plain)
    note = said(page, f"{box.url} answers, but not to this page")
    assert note.get_by_label("conf/gateway.yaml").inner_text() == f'cors: {{origins: ["{origin}"]}}'
    assert axe.violations(page) == []


@needs_certutil
def test_http_from_https(visit: Any, world: World, box: Box) -> None:
    page = visit(world.secure)
    address = box.url.replace("127.0.0.1", "box.example")
    attempt(page, address)
    note = said(page, "A page that came by https can't talk to a box by http")
    note.get_by_role("link", name="Open the gateway's own page").wait_for()


@needs_certutil
def test_chromium_guards_the_local_network(visit: Any, world: World, box: Box) -> None:
    page = visit(world.secure)
    address = f"https://box.lan:{free_port()}"
    attempt(page, address, key=box.plain)
    note = said(page, f"No connection to {address}")  # for which nobody is asked
    expect(note).to_contain_text("Did the browser ask")
    attempt(page, box.url)  # nobody is there to allow it
    said(page, "The browser keeps this page from your local network")
    assert axe.violations(page) == []
    page.context.grant_permissions(["local-network-access"])
    attempt(page, box.url)
    inside(page)


def test_only_a_page_over_tls_may_ask_for_it(visit: Any, world: World, box: Box) -> None:
    page = visit(world.public)
    attempt(page, box.url, key=box.plain)
    note = said(page, "The browser keeps this page from your local network")
    href = note.get_by_role("link", name="Open this page by https").get_attribute("href")
    assert href == f"{world.public.replace('http:', 'https:')}/"


def test_a_name_that_the_gateway_does_not_go_by(visit: Any, world: World, box: Box) -> None:
    page = visit(world.home)
    attempt(page, box.url.replace("127.0.0.1", "box.example"), key=box.plain)
    note = said(page, "The gateway doesn't answer to the name box.example")
    assert note.get_by_label("conf/gateway.yaml").inner_text() == 'allowed_hosts: ["box.example"]'


@pytest.mark.parametrize(
    "answer",
    [
        (200, "<!doctype html><title>Router</title>"),
        (404, "<!doctype html><title>Not found</title>"),
        (200, {"object": "list", "data": [{"id": "gpt"}]}),
        (401, {"detail": "Unauthorized"}),
    ],
)
def test_another_server(visit: Any, world: World, answer: tuple[int, object]) -> None:
    page = visit(world.home)
    with answering({"*": answer}) as port:
        attempt(page, f"http://127.0.0.1:{port}")
        said(page, f"At http://127.0.0.1:{port} there is no gateway, but another server")


def test_a_gateway_that_is_starting(visit: Any, world: World) -> None:
    """Too short a time with a real one; the page waits for it."""
    busy = {"error": {"message": "not now", "type": "overloaded_error", "code": "unavailable"}}
    answers: dict[str, tuple[int, object]] = {
        "/health": (200, {"status": "ok"}),
        "/ready": (503, {"status": "starting"}),
        "*": (503, busy),
    }
    page = visit(world.home)
    with answering(answers) as port:
        attempt(page, f"http://127.0.0.1:{port}", key="k")
        said(page, "The gateway is starting")
        answers["/ready"] = (503, {"status": "stopping"})
        said(page, "The gateway is stopping")
        answers["/v1/models"] = (200, {"data": []})
        forbidden = {"message": "no", "type": "permission_error", "code": "admin_key_required"}
        answers["/admin/status"] = (403, {"error": forbidden})
        inside(page)
