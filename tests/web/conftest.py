"""The page in Chromium, as the gateway serves it, with somebody signed in.

As everywhere with playwright's synchronous part: no test here may be a coroutine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.chromium import PATIENCE, PROGRAM, chromium
from tests.harness import DEMO, DEMO_GGUF, Served, project
from tests.web.built import ensure_built
from tests.web.visitors import Box, OpenPage

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def models(tiny_model: Path, parrot_model: Path) -> dict[str, Any]:
    """models.json of the gateway. A module may have another fixture of this name.

    The real little model, one that says twenty letters, one that doesn't stop, and one that says
    what it is told.
    """

    def made(model: Path, **more: Any) -> dict[str, Any]:
        return {"params": {"model": str(model), "ctxSize": 8192, "threads": 1}, **more}

    def held(grammar: str) -> dict[str, Any]:
        return {"setParams": {"temperature": 0, "grammar": grammar}}

    return {
        DEMO: {"params": {"model": DEMO_GGUF, "threads": 2}},
        "tiny": made(
            tiny_model,
            **held("root ::= [a-z ]{20,20}"),
            personalities={"geography teacher": "You are a geography teacher."},
        ),
        "endless": made(tiny_model, **held("root ::= [a-z ] root")),
        "parrot": made(parrot_model),
    }


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """gateway.yaml of the gateway. A module may have another fixture of this name."""
    return {}


@pytest.fixture(scope="module")
def box(
    tmp_path_factory: pytest.TempPathFactory, models: dict[str, Any], settings: dict[str, Any]
) -> Iterator[Box]:
    """One gateway for the tests of a module."""
    ensure_built()
    root = tmp_path_factory.mktemp("box")
    served = Served(root, "--config", str(project(root / "p", models, **settings)))
    try:
        box = Box(served, served.key, "")
        box.plain = box.ask("POST", "/admin/keys", {"name": "plain"})["key"]
        yield box
    finally:
        served.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("no chromium: apt-get install chromium")
    with chromium(tmp_path_factory.mktemp("home")) as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser, box: Box) -> Iterator[OpenPage]:
    """``open_page(path="#/chat", key=None, **options of a browser's context)``: a new visitor.

    Comes with the link of a first start, if there is a ``key``. The test fails at its end if a
    script of the page threw something that nobody caught, or wanted what the CSP forbids; what it
    does of that on purpose it takes out of ``open_page.complaints``.
    """
    opened = OpenPage(browser, box)
    yield opened
    opened.close()
    assert opened.complaints == []


@pytest.fixture
def admin_page(open_page: OpenPage, box: Box) -> Page:
    """The page for who has an admin key, at the chat."""
    return open_page(key=box.admin)


@pytest.fixture
def plain_page(open_page: OpenPage, box: Box) -> Page:
    """The page for who has a plain key, at the chat."""
    return open_page(key=box.plain)
