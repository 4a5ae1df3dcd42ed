"""docs/configuration.md has every setting, as the gateway reads it."""

from __future__ import annotations

import re

import pytest
import yaml

from gateway import json_schemas, settings_page
from gateway.cli import parser_for
from gateway.config.environment import ENV_PREFIX
from gateway.config.load import load_partly, parse_settings
from gateway.config.places import skeleton
from gateway.config.schema import SETTINGS
from gateway.config.settings import Settings
from gateway.validation import key_paths

TEXT = settings_page.PAGE.read_text(encoding="utf-8")
#: Path of a setting -> its row.
ROWS = {
    row.group(1): row.group(0)
    for row in re.finditer(r"^\| `([a-z_.]+)`<br>.*$", TEXT, re.MULTILINE)
}
SECTIONS = {".".join(path[:-1]) for path in key_paths(SETTINGS)} - {""}


def test_the_page_is_the_one_made_of_the_schema() -> None:
    made = settings_page.page(json_schemas.made()["gateway.json"])
    assert made == TEXT, "write it anew: python -m gateway.json_schemas"


def test_every_setting_has_a_row_and_every_section_a_heading() -> None:
    assert ROWS.keys() == {".".join(path) for path in key_paths(SETTINGS)} - SECTIONS
    headings = set(re.findall(r"^## ([a-z_.]+)$", TEXT, re.MULTILINE))
    assert headings == SECTIONS


@pytest.mark.parametrize("path", ROWS)
def test_each_variable_that_is_named_sets_its_setting(path: str) -> None:
    variable = re.search(rf"`({ENV_PREFIX}[A-Z_]+)`", ROWS[path])
    assert variable is not None
    nonsense = "[{}]"  # a value of no setting, so there is a problem with the one that was meant
    _, problems = load_partly(environ={variable[1]: nonsense})
    named = {problem.key.removesuffix(".0") for problem in problems}
    assert named & {path, variable[1]}, named


@pytest.mark.parametrize(("path", "option"), settings_page.OPTIONS.items())
def test_options_are_those_of_serve(path: str, option: str) -> None:
    assert getattr(parser_for("serve").parse_args(["serve", option, "9"]), path) == "9"
    assert f"`{option}`" in ROWS[path]


def test_defaults_are_those_without_a_file() -> None:
    written = yaml.safe_load(skeleton("conf/gateway.yaml").read_bytes())
    assert parse_settings(written) == Settings()
    assert "| `64MiB` |" in ROWS["limits.max_body"]
