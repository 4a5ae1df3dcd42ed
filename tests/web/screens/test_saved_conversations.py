"""What a model's page says of conversations, against a gateway that saves them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.harness import DEMO, DEMO_GGUF

if TYPE_CHECKING:
    from tests.web.visitors import Box, OpenPage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {DEMO: {"params": {"model": DEMO_GGUF, "threads": 1, "ctxSize": 1024}}}


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {"cache": {"enabled": True, "min_tokens": 16}}


@pytest.mark.parametrize("width", [360, 1280])
def test_page_of_a_model_tells_what_is_saved_and_what_was_read_back(
    open_page: OpenPage, box: Box, width: int
) -> None:
    box.ask("DELETE", "/admin/cache")
    talk(box, f"Tell me of the cat on the green hill at {width}. " * 4)
    talk(box, f"Old dogs ran over a mat, and said nothing of note at {width}. " * 4)
    page = open_page(f"#/models/{DEMO}", key=box.admin, viewport={"width": width, "height": 800})
    saved = page.locator("dl.model-facts > div", has_text="Saved conversations")
    expect(saved).to_contain_text(re.compile(r"[12] \(\d+ MiB\)"))
    before = saved.inner_text()
    talk(box, f"Tell me of the cat on the green hill at {width}. " * 4)
    expect(saved).not_to_have_text(before)  # by itself, though no model was loaded
    expect(saved).to_contain_text(
        re.compile(r"from disk (once|\d+ times): \d+ tokens, about .* spared")
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def talk(box: Box, text: str) -> None:
    """Have a conversation; the one before it is saved, as there is one slot."""
    said = [{"role": "user", "content": text}]
    box.ask("POST", "/v1/chat/completions", {"model": DEMO, "messages": said, "max_tokens": 2})
