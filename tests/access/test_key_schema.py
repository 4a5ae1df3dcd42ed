"""A key's fields are declared once: what is said of them is what holds."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.access.key_schema import answer_schema, body_schema, checked, fields_in, shown
from gateway.access.store import KeyRecord
from gateway.cli.key_options import add_key_options, body_of
from gateway.errors import BadRequest

OPTIONS = (
    *("phone", "Bob's", "--admin", "--expires", "30d", "--models", "a, b", "--personalities", ""),
    *("--default-personality", "pirate", "--rpm", "6", "--tpm", "7", "--tpd", "8"),
    *("--concurrency", "1", "--max-tokens", "9", "--max-seconds", "10"),
)


def typed(*arguments: str) -> dict[str, Any]:
    """What ``keys create`` makes of ``arguments``."""
    parser = argparse.ArgumentParser()
    add_key_options(parser)
    return body_of(parser.parse_args(arguments))


def is_taken(field: str, value: object) -> bool:
    try:
        checked(fields_in({field: value}))
    except BadRequest:
        return False
    return True


def test_every_field_has_an_option_and_options_fit_the_documented_schema() -> None:
    body = typed(*OPTIONS)
    assert body.keys() == body_schema().keys()
    assert body["limits"].keys() == body_schema()["limits"]["properties"].keys()
    for name, schema in body_schema().items():
        Draft202012Validator(schema).validate(body[name])
    kept = checked(fields_in(body))
    assert kept["models"] == ("a", "b")
    assert kept["personalities"] == ()
    assert kept["expires"] > datetime.now(UTC)


def test_an_option_that_is_not_given_says_nothing() -> None:
    assert typed("phone") == {"name": "phone", "description": "", "admin": False, "metrics": False}


VALUES: list[object] = [
    *(None, True, False, 0, 1, -1, 1.5, "", "x", "30d", [], ["x"], [""], [1], {}, {"rpm": 1}),
    *({"rpm": 0}, {"rpm": None}, {"rpm": "1"}, {"rpm": 1.5}, {"rph": 1}, {"rpm": True}),
    *("x" * 100, "x" * 101, "x" * 1000, "x" * 1001),
]


@pytest.mark.parametrize("field", sorted(body_schema()))
def test_what_is_taken_fits_the_documented_schema_and_nothing_else_does(
    field: str, subtests: pytest.Subtests
) -> None:
    documented = Draft202012Validator(body_schema()[field])
    for value in VALUES:
        with subtests.test(f"{value!r:.80}"):
            if field == "expires" and (isinstance(value, str) or value in (0, -1)):
                continue  # that a text is a time, and one to come, JSON Schema cannot say
            assert is_taken(field, value) is documented.is_valid(value), value


def test_what_is_shown_fits_the_documented_schema() -> None:
    record = KeyRecord(
        id="k_1", hash="", created=datetime.now(UTC), **checked(fields_in(typed(*OPTIONS)))
    )
    for one in (record, KeyRecord(id="k_2", name="n", hash="", created=datetime.now(UTC))):
        Draft202012Validator({**answer_schema(), "additionalProperties": False}).validate(
            json.loads(json.dumps(shown(one)))
        )
