"""The OpenAPI document and its page, as they are served."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gateway import __version__
from tests.harness import MakeGateway, fake_model
from tests.openapi_documents import DOCUMENT

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a browser would run or fetch, and the ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value for name, value in attrs if name == "id" and value]


async def test_anybody_reads_both_and_they_tell_nothing_of_this_box(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with make_gateway({"a secret model": fake_model(tmp_path)}) as running:
        assert await running.json("GET", "/openapi.json", key=None) == (200, DOCUMENT)
        assert await running.json("GET", "/openapi.json") == (200, DOCUMENT)
        for path in ("/openapi.json", "/docs"):
            async with running.request("GET", path, key=None) as response:
                text = await response.text()
            assert response.status == 200
            for secret in ("a secret model", str(tmp_path), running.url, f'"{__version__}"'):
                with subtests.test(f"{secret!r:.80}"):
                    assert secret not in text
            async with running.request("HEAD", path, key=None) as response:
                assert (response.status, await response.read()) == (200, b"")
    assert DOCUMENT["info"]["version"] == "1"  # the API's, whatever the gateway's


async def test_plain_page_is_served_without_the_built_one(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with (
        make_gateway({"a": fake_model(tmp_path)}, page=False) as running,
        running.request("GET", "/docs", key=None) as response,
    ):
        text, headers = await response.text(), response.headers
    page = Page(text)
    operations = [o for each in DOCUMENT["paths"].values() for o in each.values()]
    assert sorted(page.ids) == sorted(o["operationId"] for o in operations)
    assert not page.tags & {"script", "link", "img", "iframe", "form", "a", "base", "object"}
    assert not {name for name in page.attributes if name.startswith("on")} | (
        page.attributes & {"src", "href", "style"}
    )
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    (digest,) = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in style)
    assert headers["Content-Security-Policy"].startswith(
        f"default-src 'none'; style-src 'sha256-{digest}'; "
    )
    assert headers["Referrer-Policy"] == "no-referrer"
