"""The page over HTTP: its files for everybody, with the headers that keep it what it is."""

from __future__ import annotations

import asyncio
import json
import re
import tracemalloc
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.http.answer_headers import EVERY_ANSWER
from gateway.web import page
from tests.harness import MakeGateway
from tests.web.built import WEB, ensure_built

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_page_and_its_assets_are_served(make_gateway: MakeGateway) -> None:
    ensure_built()
    async with make_gateway({}) as running:
        async with running.request("GET", "/", key=None, headers=HTML) as response:
            assert (response.status, response.content_type) == (200, "text/html")
            assert response.headers["Cache-Control"] == "no-cache"
            vary = ", ".join(response.headers.getall("Vary"))
            assert "Accept, Accept-Encoding" in vary
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert "camera=(self)" in response.headers["Permissions-Policy"]
            policy = response.headers["Content-Security-Policy"]
            etag, text = response.headers["ETag"], await response.text()
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "<script>" not in text
        assert "style=" not in text
        again = {**HTML, "If-None-Match": etag}
        async with running.request("GET", "/", key=None, headers=again) as response:
            assert (response.status, await response.read()) == (304, b"")
        async with running.request("HEAD", "/", key=None, headers=HTML) as response:
            assert (response.status, await response.read()) == (200, b"")
            assert int(response.headers["Content-Length"]) > 0
        linked = re.findall(r'(?:src|href)="(/assets/[^"]+)"', text)
        assert {path.rpartition(".")[2] for path in linked} == {"js", "css"}
        for path in linked:
            async with running.request("GET", path, key=None) as response:
                assert response.status == 200
                assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
                assert response.content_type in ("text/javascript", "text/css")
                assert len(await response.read()) > 100


async def test_who_does_not_read_costs_little(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = bytes(range(256)) * 2**16  # 16 MiB: more than the system takes for a connection
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/large.js").write_bytes(large)
    (tmp_path / "index.html").write_text("<head></head>")
    monkeypatch.setattr("gateway.app.DIST", tmp_path)
    async with make_gateway({}) as running:
        path = "/assets/large.js"
        async with running.request("GET", path, key=None) as response:
            assert response.content_length == len(large)
            assert await response.read() == large
        async with running.request("HEAD", path, key=None) as response:
            assert (response.content_length, await response.read()) == (len(large), b"")
        there = urlsplit(running.url)
        _, writer = await asyncio.open_connection(there.hostname, there.port, limit=1)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {there.netloc}\r\n\r\n".encode())
        try:
            tracemalloc.start()
            async with running.request("GET", "/ping", key=None) as response:  # it has begun
                await response.read()
            await asyncio.sleep(0.2)  # what is read meanwhile must not pile up
            assert tracemalloc.get_traced_memory()[0] < len(large) / 4
        finally:
            tracemalloc.stop()
            writer.transport.abort()


async def test_nothing_else_is_open(make_gateway: MakeGateway, subtests: pytest.Subtests) -> None:
    async with make_gateway({}) as running:
        for method, path, key, expected in (
            ("GET", "/", None, (401, "invalid_api_key")),
            ("GET", "/index.html", None, (401, "invalid_api_key")),
            ("GET", "/assets/nothing.js", None, (404, "file_not_found")),
            ("GET", "/assets/..%2f..%2fpage.py", None, (404, "file_not_found")),
            ("POST", "/", None, (401, "invalid_api_key")),
            ("POST", "/", running.key, (405, "method_not_allowed")),
            ("GET", "/", "llmgw_wrong", (401, "invalid_api_key")),
        ):
            with subtests.test(f"{method!r:.80}"):
                status, answer = await running.json(method, path, key=key)
                assert (status, answer["error"]["code"]) == expected, (method, path)
        rebound = {**HTML, "Host": "evil.example"}
        status, answer = await running.json("GET", "/", key=None, headers=rebound)
        assert (status, answer["error"]["code"]) == (421, "host_not_allowed")


async def test_page_that_was_never_built_says_how_to_build_it(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.app.DIST", tmp_path / "none")
    async with make_gateway({}) as running:
        async with running.request("GET", "/", key=None, headers=HTML) as response:
            assert (response.status, response.content_type) == (501, "text/html")
            assert "npm ci && npm run build" in await response.text()
            assert response.headers["Cache-Control"] == "no-store"
        async with running.request("GET", "/favicon.ico", key=None) as response:
            assert response.status == 404


async def test_page_may_be_switched_off(
    make_gateway: MakeGateway, subtests: pytest.Subtests
) -> None:
    async with make_gateway({}, page=False) as running:
        for path in ("/", "/assets/a.js", "/favicon.ico", "/sw.js"):
            with subtests.test(f"{path!r:.80}"):
                async with running.request("GET", path, key=None, headers=HTML) as response:
                    assert (response.status, response.content_type) == (401, "application/json")
                status, answer = await running.json("GET", path, headers=HTML)
                assert (status, answer["error"]["code"]) == (404, "route_not_found")


def test_hosted_elsewhere_it_has_the_same_headers() -> None:
    hosting = json.loads((WEB / "firebase.json").read_text())["hosting"]
    rules = {
        rule["source"]: {each["key"]: each["value"] for each in rule["headers"]}
        for rule in hosting["headers"]
    }
    everywhere = {**page.HEADERS, **EVERY_ANSWER}
    del everywhere["Server"]
    assert rules["**"] == everywhere
    assert rules["/assets/**"] == {"Cache-Control": page.FOR_EVER}
    assert rules["/icons/**"] == {"Cache-Control": page.A_DAY}
    # What isn't there must not be the page: it would be kept for a year under the asset's name.
    (rewrite,) = hosting["rewrites"]
    assert rules[rewrite["source"]] == {"Cache-Control": page.ASK_AGAIN}
