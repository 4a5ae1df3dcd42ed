"""llama.cpp's web UI at /ui/: its files, over HTTP. The page itself: test_webui_page.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.harness import MakeGateway


async def test_web_ui_serves_files_to_everybody_and_the_rest_to_keys(
    make_gateway: MakeGateway, subtests: pytest.Subtests
) -> None:
    async with make_gateway({}, llama_server="auto") as running:
        async with running.request("GET", "/ui", key=None, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (308, "ui/")
        async with running.request("GET", "/ui/", key=None) as response:
            assert response.status == 200
            assert response.content_type == "text/html"
            page = await response.text()
            policy = response.headers["Content-Security-Policy"]
            assert "script-src 'self' 'wasm-unsafe-eval' 'sha256-" in policy
            assert "connect-src 'self' data: blob:;" in policy
            etag = response.headers["ETag"]
        script = re.search(r'import\("\./(_app[^"]+)"\)', page)
        assert script is not None
        async with running.request("GET", f"/ui/{script[1]}", key=None) as response:
            assert response.status == 200
            assert "immutable" in response.headers["Cache-Control"]
            assert response.content_type == "application/javascript"
        again = {"If-None-Match": etag}
        async with running.request("GET", "/ui/", key=None, headers=again) as response:
            assert (response.status, await response.read()) == (304, b"")
        plain = {"Accept-Encoding": "identity"}
        async with running.request("GET", "/ui/index.html", key=None, headers=plain) as response:
            assert "Content-Encoding" not in response.headers
            assert await response.text() == page
        for path, key, expected in (
            ("/ui/nothing.js", None, (404, "file_not_found")),
            ("/ui/../ui/..%2f..%2fconf/gateway.yaml", None, (404, "file_not_found")),
            ("/ui/v1/models", None, (401, "invalid_api_key")),
            ("/ui/props", None, (401, "invalid_api_key")),
            ("/ui/tools", running.key, (403, "route_refused")),
            ("/ui/admin/keys", running.key, (404, "file_not_found")),
        ):
            with subtests.test(f"{path!r:.80}"):
                status, answer = await running.json("GET", path, key=key)
                assert (status, answer["error"]["code"]) == expected, path
        status, answer = await running.json("GET", "/ui/props")
        assert (status, answer["role"]) == (200, "router")


async def test_llama_server_without_a_web_ui_is_told(make_gateway: MakeGateway) -> None:
    async with make_gateway({}) as running:
        status, answer = await running.json("GET", "/ui/", key=None)
        assert (status, answer["error"]["code"]) == (501, "no_web_ui")
        assert "built without" in answer["error"]["message"]


async def test_without_llama_server_there_is_no_web_ui(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Why is in the log: where things lie on this machine is nobody's business."""
    async with make_gateway({}, llama_server=str(tmp_path / "nothing")) as running:
        status, answer = await running.json("GET", "/ui/", key=None)
        assert (status, answer["error"]["code"]) == (503, "web_ui_failed")
        assert str(tmp_path) not in json.dumps(answer)


async def test_web_ui_may_be_switched_off(
    make_gateway: MakeGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    starts = tmp_path / "starts"
    monkeypatch.setenv("FAKE_STARTS", str(starts))
    async with make_gateway({}, ui=False) as running:
        for path in ("/ui", "/ui/", "/ui/v1/models"):
            with subtests.test(f"{path!r:.80}"):
                status, answer = await running.json("GET", path)
                assert (status, answer["error"]["code"]) == (404, "route_not_found")
    assert not starts.exists()
