"""The page as an app that is installed: its service worker, manifest and icons, in Chromium."""

from __future__ import annotations

import json
import struct
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.chromium import PATIENCE, needs_chromium
from tests.harness import Served, project
from tests.web.built import ensure_built

pytestmark = needs_chromium
_READY = """async () => {
  const registration = await navigator.serviceWorker.ready;
  const worker = registration.active;
  if (worker.state !== "activated") {
    await new Promise(resolve => { worker.onstatechange = resolve; });
  }
  return registration.scope;
}"""
#: All that the worker keeps: cache -> addresses.
_KEPT = """async () => {
  const kept = {};
  for (const name of await caches.keys()) {
    const requests = await (await caches.open(name)).keys();
    kept[name] = requests.map(request => new URL(request.url).pathname).sort();
  }
  return kept;
}"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    ensure_built()
    served = Served(tmp_path, "--config", str(project(tmp_path / "p", {})))
    yield served
    served.stop()


def opened(browser: Browser, url: str) -> Page:
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    return page


def test_the_page_opens_where_the_gateway_is_out_of_reach(browser: Browser, served: Served) -> None:
    page = opened(browser, f"{served.url}/#key={served.key}")
    page.get_by_role("main").wait_for()
    assert page.evaluate(_READY) == f"{served.url}/"
    assert page.evaluate("async () => (await fetch('/health')).ok")
    page.reload()  # through the worker
    page.get_by_role("main").wait_for()
    status = page.evaluate("async () => (await fetch('/v1/models')).status")
    assert status == 401  # asked the gateway, without a key
    (kept,) = page.evaluate(_KEPT).values()
    assert "/" in kept
    assert all(path == "/" or path.startswith("/assets/") for path in kept), kept
    url = page.url
    assert served.key not in json.dumps([url, kept])
    assert served.stop() == 0
    page.reload()
    page.get_by_role("main").wait_for()
    assert page.evaluate(
        "async () => fetch('/health').then(() => 'told', () => 'unreachable')"
    ) == ("unreachable")
    page.context.close()


def test_another_version_takes_over_and_leaves_nothing_behind(
    browser: Browser, served: Served
) -> None:
    page = opened(browser, f"{served.url}/")
    page.evaluate(_READY)
    page.evaluate("() => caches.open('shell-older').then(cache => cache.put('/', new Response()))")
    page.evaluate(
        """async () => {
          const registration = await navigator.serviceWorker.ready;
          await registration.unregister();
        }"""
    )
    page.reload()
    page.evaluate(_READY)
    assert len(page.evaluate(_KEPT)) == 1
    page.context.close()


def get(url: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.headers["Content-Type"], answer.read()


def png_size(image: bytes) -> tuple[int, int]:
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", image[16:24])
    return width, height


def test_manifest_and_icons_are_served(browser: Browser, served: Served) -> None:
    kind, content = get(f"{served.url}/manifest.webmanifest")
    assert kind == "application/manifest+json"
    manifest: dict[str, Any] = json.loads(content)
    for icon in manifest["icons"]:
        kind, image = get(served.url + icon["src"])
        assert kind == icon["type"]
        if icon["sizes"] != "any":
            assert "{}x{}".format(*png_size(image)) == icon["sizes"]
    kind, icon_file = get(f"{served.url}/favicon.ico")
    assert kind == "image/x-icon"
    assert icon_file.startswith(b"\0\0\1\0")
    assert get(f"{served.url}/sw.js")[0].startswith("text/javascript")
    # Chromium's own opinion of it, as its "Application" panel shows.
    page = opened(browser, f"{served.url}/")
    session = page.context.new_cdp_session(page)
    assert session.send("Page.getInstallabilityErrors")["installabilityErrors"] in (
        [],
        [{"errorId": "in-incognito", "errorArguments": []}],  # as all of playwright's contexts are
    )
    assert session.send("Page.getAppManifest")["errors"] == []
    page.context.close()
