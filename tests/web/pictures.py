"""``python -m tests.web.pictures [FOLDER]``: the pictures of the page that README.md shows.

A real gateway with the demo model is asked a few things, and three screens are taken as they are
then (docs/pictures/*.png, 1280 x 800). Wants Chromium.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path
from typing import Any

from tests.chromium import PROGRAM, chromium
from tests.harness import DEMO, DEMO_GGUF, REPOSITORY, Served, project
from tests.minilm_model import wheel, write_minilm_model
from tests.web.built import ensure_built
from tests.web.visitors import Box, OpenPage

SIZE = {"width": 1280, "height": 800}
_QUESTION = "What is a rainbow? Answer in one short paragraph."
_MODELS: dict[str, Any] = {
    DEMO: {
        "description": "The small demonstration model.",
        "params": {"model": DEMO_GGUF, "seed": 7, "threads": 1},
        "setParams": {"temperature": 0, "max_tokens": 120},
        "personalities": {
            "geography teacher": "You are a geography teacher.",
            "pirate": "You are a pirate. Answer like one.",
        },
    },
    "storyteller": {
        "description": "The same model, for long stories.",
        "params": {"model": DEMO_GGUF, "ctxSize": 8192, "threads": 1},
    },
}


def main(folder: Path) -> None:
    """Write the pictures into ``folder``."""
    if PROGRAM is None:
        raise SystemExit("no chromium: apt-get install chromium")
    ensure_built()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        notes = root / "minilm.gguf"
        write_minilm_model(notes, wheel())
        embedding = {
            "description": "Embeddings, for searching one's own notes.",
            "params": {"model": str(notes)},
            "embeddings": True,
        }
        models = {**_MODELS, "MiniLM-L6": embedding}
        served = Served(root, "--config", str(project(root / "box", models)))
        try:
            box = Box(served, served.key, "")
            with chromium(root) as browser:
                open_page = OpenPage(browser, box)
                _take(open_page, box, folder)
                open_page.close()
        finally:
            served.stop()


def _take(open_page: OpenPage, box: Box, folder: Path) -> None:
    kitchen = box.ask("POST", "/admin/keys", {"name": "kitchen tablet"})["key"]
    for key, model in ((kitchen, DEMO), (box.admin, f"{DEMO}:pirate"), (kitchen, "storyteller")):
        asked = {"model": model, "messages": [{"role": "user", "content": _QUESTION}]}
        box.ask("POST", "/v1/chat/completions", {**asked, "max_tokens": 40}, key)
    page = open_page(key=box.admin, viewport=SIZE, color_scheme="light")

    question = page.get_by_role("textbox", name="Message")
    question.fill(_QUESTION)
    question.press("Enter")
    page.get_by_text("words/s").wait_for()
    page.screenshot(path=folder / "chat.png")

    page.evaluate("location.hash = '#/models'")
    page.get_by_role("heading", name="storyteller").wait_for()
    page.screenshot(path=folder / "models.png")

    writing = {"model": "storyteller", "messages": [{"role": "user", "content": "Once upon"}]}
    stories = threading.Thread(
        target=box.ask,
        args=("POST", "/v1/chat/completions", {**writing, "max_tokens": 300}, kitchen),
    )
    stories.start()
    page.evaluate("location.hash = '#/activity'")
    page.get_by_role("button", name="Cancel").first.wait_for()
    page.screenshot(path=folder / "activity.png")
    stories.join()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", nargs="?", type=Path, default=REPOSITORY / "docs/pictures")
    main(arguments.parse_args().folder)
