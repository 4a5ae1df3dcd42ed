"""The page on which all pictures are to be seen side by side."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from tests.web.look.state import State

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>States of the page</title>
<style>
  body { margin: 24px; font: 15px/1.5 system-ui, sans-serif; color: #1d1d1b; background: #c9c9c4 }
  section { margin-bottom: 48px }
  div { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 16px }
  figure { margin: 0 }
  img { display: block; height: 320px; max-width: 100%; border: 1px solid #8a8a82 }
  img.whole { height: auto; width: 200px }
  nav a { margin-right: 12px }
</style>
"""


def write(folder: Path, states: Sequence[State]) -> None:
    """Write ``folder/index.html``, of every picture there is of ``states``."""
    parts = [_HEAD, "<h1>States of the page</h1>\n<nav>"]
    parts += [f'<a href="#{one.name}">{one.name}</a>' for one in states]
    parts.append("</nav>")
    parts += [_section(folder, one) for one in states]
    (folder / "index.html").write_text("\n".join(parts), encoding="utf-8")


def _section(folder: Path, state: State) -> str:
    pictures = sorted(folder.glob(f"{state.name}.*.png"), key=_order)
    shown = "\n".join(
        f'<figure><a href="{one.name}"><img class="{_kind(one)}" src="{one.name}" loading="lazy"'
        f' alt=""></a><figcaption>{one.stem}</figcaption></figure>'
        for one in pictures
    )
    title = html.escape(state.title)
    return f'<section id="{state.name}"><h2>{title}</h2><div>\n{shown}\n</div></section>'


def _kind(picture: Path) -> str:
    return picture.stem.rpartition(".")[2]


def _order(picture: Path) -> tuple[str, int, str]:
    rest, _, kind = picture.stem.rpartition(".")
    part, _, width = rest.rpartition(".")
    return part, int(width), {"light": "1", "dark": "2"}.get(kind, "3")
