"""Fixtures of the tests in this folder."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from gateway.tls import self_signed
from tests.chromium import CERTUTIL, PATIENCE, PROGRAM, chromium, trust
from tests.harness import Served, project
from tests.web.hosted import hosted
from tests.web.screens.signin.attempts import Ports, World
from tests.web.visitors import Box


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
