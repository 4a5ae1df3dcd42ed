"""What is installed, and what people are told to install."""

from __future__ import annotations

import importlib.metadata
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import REPOSITORY

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
SOMEBODY_ELSES = re.compile(r"llm-gateway\[\w|\binstall\b[^\n|;&]*[\s'\"`]llm-gateway(?![\w./-])")


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


def test_the_pythons_it_is_said_to_run_on() -> None:
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
        ("cp llm-gateway.service", False),
        ("pip install 'llm-api-gateway[acme]'", False),
    ],
)
def test_the_rule_itself(line: str, wrong: bool) -> None:
    assert (SOMEBODY_ELSES.search(line) is not None) is wrong
