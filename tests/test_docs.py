"""What the documentation says is so: links lead somewhere, names are those of the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway.models.catalog import parse_catalog
from gateway.models.entry_schema import ENTRY, PARAMS
from tests.harness import REPOSITORY
from tests.route_table import API

PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(
            page
            for folder in ("docs", "ssl", "tests")
            for page in (REPOSITORY / folder).rglob("*.md")
            if "node_modules" not in page.parts
        ),
    ]
)
DOCS = REPOSITORY / "docs"


def section(page: str, heading: str) -> str:
    text = (DOCS / page).read_text()
    found = re.search(rf"^#+ {heading}$\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"{page} has no section {heading}"
    return found[1]


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
        if "://" in target:  # can't be asked here, but may be nonsense
            assert re.fullmatch(r"https://([a-z0-9-]+\.)+[a-z]{2,}(/\S*)?", target), target
            continue
        led_to = page.parent / target if target else page
        assert led_to.exists(), f"{target} isn't there"
        assert not anchor or anchor in anchors(led_to), f"{target} has no #{anchor}"


def test_the_readme_stays_short_and_leads_to_every_page() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert text.count("\n") <= 150
    missing = [page.name for page in DOCS.glob("*.md") if f"(docs/{page.name}" not in text]
    assert not missing


def test_every_public_route_is_in_the_documentation_of_http() -> None:
    text = (DOCS / "http-api.md").read_text()
    missing = {
        row.path
        for row in API
        if row.path.split("{")[0].rstrip("/").removeprefix("/v1") not in text
    }
    assert not missing


def test_the_entries_that_are_shown_are_valid() -> None:
    blocks = re.findall(r"```json\n(.*?)```", (DOCS / "models-json.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        assert parse_catalog(block).models.keys() == json.loads(block).keys()


def names(model: type[BaseModel]) -> Iterator[str]:
    """As they are written in models.json."""
    for name, field in model.model_fields.items():
        yield field.alias or name


@pytest.mark.parametrize(
    ("model", "beside"), [(ENTRY, {"name", "params"}), (PARAMS, set())], ids=["entry", "params"]
)
def test_every_key_of_models_json_is_documented(model: type[BaseModel], beside: set[str]) -> None:
    told = section("models-json.md", "An entry")
    assert not [name for name in names(model) if name not in beside and f"`{name}`" not in told]


def test_every_error_that_troubleshooting_names_is_one_of_ours() -> None:
    rows = re.findall(
        r"^\| (?!what you see|---)(.*?) \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE
    )
    codes = [code for row in rows for code in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", row)]
    code = "".join(file.read_text() for file in (REPOSITORY / "gateway").rglob("*.py"))
    assert len(codes) > 10
    assert not [one for one in codes if f'"{one}"' not in code]
