"""``python -m tests.web.look FOLDER [--only NAME ...]``: every state of the page, as pictures.

Each of :mod:`tests.web.look.states`, light and dark, at 360, 1024 and 1920 px, from gateways that
run (:mod:`tests.web.look.gateways`); where a screen is longer than the window, once more as a
whole. FOLDER/index.html shows them all, and what is wider than its place is printed. For whoever
changes the page to look at before it is done: nothing here fails for what looks wrong, but a state
that doesn't come about is an error. Wants Chromium, and `npm ci` in gateway/web. Takes a few
minutes.
"""

from __future__ import annotations

import argparse
import fnmatch
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chromium import PROGRAM, chromium
from tests.web.built import ensure_built
from tests.web.look import sheet
from tests.web.look.camera import Camera
from tests.web.look.gateways import gateways
from tests.web.look.states import STATES, State


def main() -> None:
    """Take what the command line asks for."""
    parser = argparse.ArgumentParser("python -m tests.web.look", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="where the pictures go")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="a state, or chat*; several"
    )
    parser.add_argument("--list", action="store_true", help="the names of the states, and no more")
    arguments = parser.parse_args()
    wanted = _wanted(arguments.only or ["*"])
    if arguments.list:
        for state in wanted:
            print(f"{state.name:20} {state.title}")
        return
    if arguments.folder is None:
        parser.error("the folder is missing")
    if not wanted:
        parser.error("no state has such a name: --list shows them")
    if PROGRAM is None:
        parser.error("no chromium: apt-get install chromium")
    _take(wanted, arguments.folder)


def _wanted(patterns: Sequence[str]) -> list[State]:
    return [state for state in STATES if any(fnmatch.fnmatch(state.name, one) for one in patterns)]


def _take(states: Sequence[State], folder: Path) -> None:
    ensure_built()
    folder.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        with gateways(root) as all_of_them, chromium(root) as browser:
            camera = Camera(browser, folder)
            for state in states:
                begun = time.monotonic()
                try:
                    state.take(all_of_them, camera.named(state.name))
                except Exception as error:  # the others are worth looking at all the same
                    failed.append(f"{state.name}: {str(error).strip()}")
                print(f"{state.name:20} {time.monotonic() - begun:5.1f} s", flush=True)
    sheet.write(folder, states)
    print(folder / "index.html")
    if failed:
        raise SystemExit("\n".join(["These did not come about:", *failed]))


if __name__ == "__main__":
    main()
