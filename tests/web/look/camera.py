"""Windows of each size, and pictures of what is in them, light and dark."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from playwright.sync_api import Browser, Error, Page

from tests.chromium import PATIENCE

THEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
#: By width: what a browser of that size is told to be.
SIZES: dict[int, dict[str, Any]] = {
    360: {
        "viewport": {"width": 360, "height": 740},
        "device_scale_factor": 2,
        "has_touch": True,
        "is_mobile": True,
    },
    1024: {"viewport": {"width": 1024, "height": 768}},
    1920: {"viewport": {"width": 1920, "height": 1080}},
}
#: The longest picture of a whole screen.
_LONGEST = 4000
#: How much more there is to see than the window shows, of what is as high as the window.
_HIDDEN = """() => Math.max(...[...document.querySelectorAll("html, main, .thread, dialog[open]")]
  .map(one => one.scrollHeight - one.clientHeight))"""
#: What goes sideways out of the window where nothing scrolls, and what scrolls sideways.
_TOO_WIDE = """() => {
  const named = one => [one.localName, ...one.classList].join(".");
  const scrolls = one => one.scrollWidth > one.clientWidth + 1
    && ["auto", "scroll"].includes(getComputedStyle(one).overflowX);
  const held = one => one !== null
    && (getComputedStyle(one).overflowX !== "visible" || held(one.parentElement));
  const all = [...document.querySelectorAll("body *")].filter(one => one.checkVisibility());
  return [...new Set([
    ...all.filter(scrolls).map(one =>
      `${named(one)} scrolls sideways: ${one.scrollWidth} in ${one.clientWidth} px`),
    ...all.filter(one => one.getBoundingClientRect().right > innerWidth + 1)
      .filter(one => !held(one.parentElement)).map(one => `${named(one)} leaves the window`),
  ])];
}"""
#: When fonts are there and nothing moves any more that comes to an end.
_SETTLED = """() => document.fonts.ready.then(() => Promise.all(document.getAnimations()
  .filter(one => one.effect.getComputedTiming().endTime !== Infinity)
  .map(one => one.finished.catch(() => null)))).then(() => null)"""


@dataclass
class Visit:
    """A window of one size in which a state is made, and where its pictures go."""

    browser: Browser
    folder: Path
    name: str
    width: int

    @property
    def phone(self) -> bool:
        return self.width < 900

    @contextlib.contextmanager
    def open(self, address: str, **options: Any) -> Iterator[Page]:
        """A browser that has never been at ``address``."""
        context = self.browser.new_context(
            **SIZES[self.width], color_scheme="light", locale="en-US", **options
        )
        try:
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            try:
                yield page
            except Error:  # it didn't come about: what is there instead
                page.screenshot(path=self.folder / f"{self.name}.{self.width}.failed.png")
                raise
        finally:
            context.close()

    def take(self, page: Page, part: str = "", *, whole: bool = True) -> None:
        """Take the page as it is; ``whole``: and all of it, if it is longer than the window.

        Says what is wider than its place.
        """
        name = ".".join(filter(None, (self.name, part, str(self.width))))
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            page.evaluate(_SETTLED)
            page.screenshot(path=self.folder / f"{name}.{theme}.png")
        for found in page.evaluate(_TOO_WIDE):
            print(f"  {name}: {found}")
        hidden = page.evaluate(_HIDDEN) if whole else 0
        page.emulate_media(color_scheme="light")
        if hidden > 8:
            size = SIZES[self.width]["viewport"]
            height = min(size["height"] + hidden, _LONGEST)
            page.set_viewport_size({"width": size["width"], "height": height})
            page.evaluate(_SETTLED)
            page.screenshot(path=self.folder / f"{name}.whole.png")
            page.set_viewport_size(size)


@dataclass
class Shots:
    """The pictures of one state: a window of each size after the other."""

    browser: Browser
    folder: Path
    name: str

    def __iter__(self) -> Iterator[Visit]:
        for width in SIZES:
            yield Visit(self.browser, self.folder, self.name, width)


@dataclass
class Camera:
    """Takes pictures with one browser."""

    browser: Browser
    folder: Path

    def named(self, name: str) -> Shots:
        """For the state of that name; what it had before is removed."""
        for old in self.folder.glob(f"{name}.*.png"):
            old.unlink()
        return Shots(self.browser, self.folder, name)
