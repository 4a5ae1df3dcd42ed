"""The page as the gateway serves it: built from the sources beside it before a test opens it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "gateway/web"
_BUILT = WEB / "dist/index.html"
_PATIENCE = 300  # seconds, on a busy machine


def ensure_built() -> None:
    """Build gateway/web/dist unless it is newer than all of its sources.

    One worker of pytest-xdist does it, the others wait. Skips where it is needed and there is
    neither Node nor what npm installs.
    """
    folder = os.open(WEB, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # as the package's own build does
        if not _stale():
            return
        npm = shutil.which("npm")
        if npm is None or not (WEB / "node_modules/.bin/vite").exists():
            if _BUILT.is_file():
                return  # an older one: better than none
            pytest.skip("no page: `npm ci && npm run build` in gateway/web makes it")
        run = subprocess.run(
            [npm, "run", "--silent", "build", "--", "--logLevel", "error"],
            cwd=WEB,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        if run.returncode:
            pytest.fail(f"the page can't be built: {run.stdout}{run.stderr}", pytrace=False)
    finally:
        os.close(folder)


def _stale() -> bool:
    if not _BUILT.is_file():
        return True
    built = _BUILT.stat().st_mtime
    return any(source.stat().st_mtime > built for source in _sources())


def _sources() -> Iterator[Path]:
    yield from (
        WEB / name
        for name in ("index.html", "docs.html", "package-lock.json", "shell.ts", "vite.config.ts")
    )
    for folder in ("src", "public"):
        for file in (WEB / folder).rglob("*"):
            if file.is_file() and ".test." not in file.name:
                yield file
