"""Coming in to a box elsewhere, and every reason why that may fail."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.chromium import PATIENCE, needs_certutil
from tests.harness import Served
from tests.web import axe
from tests.web.hosted import answering
from tests.web.screens.signin.attempts import World, attempt, inside, said
from tests.web.visitors import Box

pytestmark = pytest.mark.slow
expect.set_options(timeout=PATIENCE)


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def test_several_boxes_are_kept_by_name(visit: Any, world: World, box: Box) -> None:
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


def test_address_where_nothing_answers_is_told(visit: Any, world: World) -> None:
    page = visit(world.home)
    address = f"http://127.0.0.1:{free_port()}"
    attempt(page, address)
    said(page, f"Nothing answers at {address}")
    assert axe.violations(page) == []
    page.context.set_offline(True)
    attempt(page, "http://box.example:8080")
    said(page, "This device is offline")


def test_untrusted_certificate_is_explained(visit: Any, world: World, untrusted: Served) -> None:
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


def test_http_server_reached_by_https_is_explained(visit: Any, world: World, box: Box) -> None:
    page = visit(world.home)
    attempt(page, box.url.replace("http:", "https:"), key=box.plain)
    note = said(page, "speaks http, without TLS")
    note.get_by_role("button", name=f"Use {box.url}").click()
    inside(page)


def test_https_server_reached_by_http_is_explained(
    visit: Any, world: World, untrusted: Served
) -> None:
    page = visit(world.home)
    attempt(page, untrusted.url.replace("https:", "http:"))
    page.get_by_role("button", name=f"Use {untrusted.url}").click()
    said(page, "This browser doesn't trust the certificate")


def test_origin_that_is_not_let_in_is_explained(visit: Any, world: World, box: Box) -> None:
    origin = f"http://stranger.example:{world.ports.home}"
    page = visit(origin)
    attempt(page, box.url, key=box.plain)
    note = said(page, f"{box.url} answers, but not to this page")
    assert note.get_by_label("conf/gateway.yaml").inner_text() == f'cors: {{origins: ["{origin}"]}}'
    assert axe.violations(page) == []


@needs_certutil
def test_http_from_https_is_explained(visit: Any, world: World, box: Box) -> None:
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


def test_name_the_gateway_does_not_go_by_is_explained(visit: Any, world: World, box: Box) -> None:
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
def test_another_server_is_told_apart(visit: Any, world: World, answer: tuple[int, object]) -> None:
    page = visit(world.home)
    with answering({"*": answer}) as port:
        attempt(page, f"http://127.0.0.1:{port}")
        said(page, f"At http://127.0.0.1:{port} there is no gateway, but another server")


def test_starting_gateway_is_waited_for(visit: Any, world: World) -> None:
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
