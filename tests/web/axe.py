"""axe-core on a page, in both themes: what a person who can't see it, or not well, would miss.

By the axe-core of gateway/web/package.json, so that it is pinned with the rest.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.chromium import PATIENCE

_SOURCE = (
    Path(__file__).parents[2].joinpath("gateway/web/node_modules/axe-core/axe.min.js").resolve()
)
#: WCAG 2.2 at AA, and what axe calls good practice: landmarks, headings in order.
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN = """async ([tags, scope, patience]) => {
  // An inherited colour that changes goes on to change in each element below, one after another.
  const underWay = () => document.getAnimations().filter(one =>
    one.playState === "running" && one.effect.getComputedTiming().endTime !== Infinity);
  const pause = () => new Promise(resolve => setTimeout(resolve, 50));
  for (let turn = 0; turn < 100 && underWay().length > 0; turn += 1) await pause();
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error(
    `axe-core is not done after ${patience} ms: ${document.readyState}, ` +
    `${document.visibilityState}, ${document.querySelectorAll("*").length} elements`)), patience));
  const found = await Promise.race([late, axe.run(scope ?? document, {
    runOnly: {type: "tag", values: tags}, resultTypes: ["violations"],
  })]);
  return found.violations.map(({id, help, nodes}) => ({
    id, help, nodes: nodes.map(({target, failureSummary}) => [target.join(" "), failureSummary]),
  }));
}"""


def violations(page: Page, scope: str | None = None) -> list[str]:
    """What axe-core finds on ``page`` as it is now, light and dark, each in a few words.

    ``scope``: a CSS selector of the part to look at, instead of all. Skips the test where npm has
    not installed axe-core. The page's theme must be "as the system"; afterwards it is light.
    """
    source = _source()
    found: list[str] = []
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        if not page.evaluate("() => 'axe' in window"):
            page.evaluate(source)  # not as a script in the page, which its CSP forbids
        result: list[dict[str, Any]] = page.evaluate(_RUN, [_TAGS, scope, PATIENCE])
        for one in result:
            found.extend(_words(theme, one, *node) for node in one["nodes"])
    return found


def _words(theme: str, one: dict[str, Any], target: str, summary: str) -> str:
    why = "; ".join(line.strip() for line in summary.splitlines()[1:])
    return f"{theme}: {one['id']} ({one['help']}) at {target}: {why}"


@functools.cache
def _source() -> str:
    if not _SOURCE.is_file():
        pytest.skip("no axe-core: npm ci in gateway/web")
    return _SOURCE.read_text(encoding="utf-8") + "\n;0"  # a value that can be handed over
