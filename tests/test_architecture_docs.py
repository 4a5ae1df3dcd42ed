"""What docs/architecture.md says of files is so."""

from __future__ import annotations

import re

import pytest

from tests.harness import REPOSITORY

TEXT = (REPOSITORY / "docs" / "architecture.md").read_text()
SECTION = TEXT.partition("## Where to put what")[2].partition("\n## ")[0]
#: What is added -> what changes for it.
ROWS = dict(re.findall(r"^\| ((?:a|another) .+?) \| (.+) \|$", SECTION, re.MULTILINE))
#: A path in backticks, with its brackets if some follow.
FILE = re.compile(r"`([\w./-]*(?:/|\.py|\.md|\.yaml|\.ts))`(?: \(([^()]*)\))?")


@pytest.mark.parametrize("change", ROWS)
def test_files_that_a_change_touches_exist_and_have_what_is_named(change: str) -> None:
    named = FILE.findall(ROWS[change])
    assert named
    for path, brackets in named:
        outside = path.split("/")[0] in ("conf", "docs", "tests")
        file = (REPOSITORY if outside else REPOSITORY / "gateway") / path
        assert file.exists(), path
        for name in re.findall(r"`(\w+)`", brackets):
            assert re.search(rf"\b{name}\b", file.read_text()), f"{path} has no {name}"


def test_there_is_a_row_for_each_change_that_is_made_again_and_again() -> None:
    assert {
        "a route of the gateway's own",
        "a setting",
        "a key of `models.json`",
        "a limit of one request",
        "a limit of a key",
        "a scope",
        "a metric",
        "a kind of backend",
        "a command",
        "a dialect",
        "a check of `doctor`",
    } <= ROWS.keys()
