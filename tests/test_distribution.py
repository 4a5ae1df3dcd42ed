"""What is installed, and what people are told to install."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.web import hatch_build
from tests.harness import REPOSITORY
from tests.web.built import ensure_built

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
NAME = "llm-api-gateway"
TEXTS = (
    ".py",
    ".md",
    ".yaml",
    ".yml",
    ".toml",
    ".service",
    ".json",
    ".lock",
    ".txt",
    ".mjs",
    "run",
)

#: On PyPI `llm-gateway` belongs to somebody else: an argument of pip must not be it, nor an extra
#: of it. A path that ends with it (`.venv/bin/llm-gateway`, `llm-gateway.service`) is none.
SOMEBODY_ELSES = re.compile(
    r"llm-gateway\[\w|(?<!service )\binstall\b[^\n|;&]*[\s'\"`]llm-gateway(?![\w./-])"
)


def texts() -> Iterator[Path]:
    """The repository's text files (but this one), without what pip and npm put there."""
    for folder, folders, names in os.walk(REPOSITORY):
        hidden = {name for name in folders if name.startswith(".")} - {".ci"}
        folders[:] = set(folders) - hidden - {"node_modules", "build", "dist"}
        files = (Path(folder, name) for name in names if name.endswith(TEXTS))
        yield from (file for file in files if file != Path(__file__))


def test_the_distribution_has_a_name_of_its_own_and_the_command_keeps_its() -> None:
    distribution = importlib.metadata.distribution(NAME)
    assert distribution.name == PROJECT["name"] == NAME
    (command,) = distribution.entry_points.select(group="console_scripts", name="llm-gateway")
    assert command.value == "gateway.cli:main"
    # An extra that names other extras is resolved when it is built; under another name it would be
    # a dependency on a program of somebody else's.
    assert not [wanted for wanted in distribution.requires or () if "gateway" in wanted]


def test_supported_pythons_are_the_same_everywhere() -> None:
    versions = [
        kind.rpartition(" ")[2] for kind in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", kind)
    ]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert (
        f"CPython {', '.join(versions[:-1])} and {versions[-1]}"
        in (REPOSITORY / "README.md").read_text()
    )


def test_nobody_is_told_to_install_somebody_elses_program() -> None:
    files = set(texts())
    assert REPOSITORY / "README.md" in files
    assert REPOSITORY / "gateway/backends/command.py" in files
    told = [(file, SOMEBODY_ELSES.search(file.read_text())) for file in files]
    assert not [(file, found[0]) for file, found in told if found]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("pip install llm-gateway", True),
        ("pip install -q 'llm-gateway[acme]'", True),
        ("uv tool install llm-gateway==1.0", True),
        ("pip install . && .venv/bin/llm-gateway serve", False),
        ("pip install . && llm-gateway serve", False),
        ("install -d /etc/llm-gateway", False),
        ("llm-gateway service install\nllm-gateway service logs", False),
        ("cp llm-gateway.service", False),
        ("pip install 'llm-api-gateway[acme]'", False),
    ],
)
def test_rule_finds_programs_of_others(line: str, wrong: bool) -> None:
    assert (SOMEBODY_ELSES.search(line) is not None) is wrong


# --- the page that is in them --------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds that is built, and the page as it was built from just that."""
    ensure_built()
    root = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(REPOSITORY / name, root)
    for name in ("conf", "data"):
        (root / name).mkdir()
    for name in ("conf/gateway.yaml", "data/models.json"):
        shutil.copy(REPOSITORY / name, root / name)
    shutil.copytree(REPOSITORY / "systemd", root / "systemd")
    left_out = shutil.ignore_patterns("__pycache__", "node_modules")
    shutil.copytree(REPOSITORY / "gateway", root / "gateway", ignore=left_out)
    web = root / "gateway/web"
    (web / "node_modules/x").mkdir(parents=True)
    (web / "node_modules/x/x.js").touch()
    (web / "dist/.built-from").write_text(hatch_build.stamp_of(web))
    return root


def built(checkout: Path, target: str, to: Path) -> Path:
    command = (sys.executable, "-m", "hatchling", "build", "-t", target, "-d", to)
    # No Node is asked for: the page is there.
    environ = {
        **os.environ,
        "GATEWAY_WEB_BUILD": "require",
        "npm_config_registry": "http://[::1]:1",
    }
    done = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "built the page" not in done.stdout + done.stderr
    (made,) = to.iterdir()
    return made


@pytest.mark.slow
def test_a_wheel_has_the_page_and_not_what_it_is_built_from(
    checkout: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    with zipfile.ZipFile(built(checkout, "wheel", tmp_path)) as wheel:
        names = {name for name in wheel.namelist() if name.startswith("gateway/web/")}
    inside = {name.removeprefix("gateway/web/") for name in names}
    beside = {name for name in inside if not name.startswith("dist/")}
    assert beside == {"__init__.py", *(f.name for f in modules_of_the_page())}
    page = inside - beside
    assert {"dist/index.html", "dist/sw.js", "dist/favicon.ico", "dist/icons/192.png"} <= page
    assets = {name for name in page if name.startswith("dist/assets/")}
    hashed = re.compile(r"dist/assets/[\w.-]+-[\w-]{8}\.\w+(\.(br|gz|zst))?")
    assert not [name for name in assets if not hashed.fullmatch(name)]
    for ending in (".js", ".css", ".js.br", ".js.gz", ".css.br"):
        with subtests.test(f"{ending!r:.80}"):
            assert [name for name in assets if name.endswith(ending)], ending


def modules_of_the_page() -> set[Path]:
    files = set((REPOSITORY / "gateway/web").glob("*.py"))
    return {file for file in files if file.name not in ("hatch_build.py", "__init__.py")}


@pytest.mark.slow
def test_a_source_distribution_has_both_and_needs_no_node(checkout: Path, tmp_path: Path) -> None:
    with tarfile.open(built(checkout, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = (folder for folder in tmp_path.iterdir() if folder.name.startswith("llm_api"))
    web = root / "gateway/web"
    assert (web / "dist/.built-from").read_text() == hatch_build.stamp_of(web)
    assert (web / "src/main.tsx").is_file()
    assert not (web / "node_modules").exists()
    built(root, "wheel", tmp_path / "wheel")
