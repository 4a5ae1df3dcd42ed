"""LLM-API's key file: what is documented is taken, all else is refused with what is allowed."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.legacy_keys import LegacyFile, LegacyKey, parse_legacy
from gateway.problems import InvalidFiles

K1, K2 = "3f9a8b7c6d5e4f3a2b1c", "b1946ac92492d2347c62"
MARCH = datetime(2024, 3, 5, 10, tzinfo=UTC)
#: As generateAuthKey.js wrote it, and the server when the second key was used.
WRITTEN_BY_LLM_API = """{
  "0123456789abcdef0123456789abcdef": {
    "name": "Default Name",
    "description": "No description provided",
    "createdAt": "2024-03-05T10:00:00.000Z",
    "lastActivity": null
  },
  "fedcba9876543210fedcba9876543210": {
    "name": "PythonKey",
    "description": "This key is for testing purposes",
    "createdAt": "2024-03-05T10:00:00.000Z",
    "lastActivity": "2024-03-05T10:00:00.000Z"
  }
}"""


def parse(content: Any) -> LegacyFile:
    return parse_legacy(json.dumps(content).encode(), "authKeys.json")


def problems_of(content: Any) -> list[str]:
    with pytest.raises(InvalidFiles) as caught:
        parse(content)
    text = str(caught.value)
    assert K1 not in text
    assert K2 not in text
    return [f"{problem.key}: {problem.message}" for problem in caught.value.problems]


def test_file_that_llm_api_writes_is_read_whole() -> None:
    file = parse_legacy(WRITTEN_BY_LLM_API.encode(), "authKeys.json")
    assert file == LegacyFile(
        (
            LegacyKey(
                "entry 1 (Default Name)",
                "0123456789abcdef0123456789abcdef",
                "Default Name",
                "No description provided",
                MARCH,
            ),
            LegacyKey(
                "entry 2 (PythonKey)",
                "fedcba9876543210fedcba9876543210",
                "PythonKey",
                "This key is for testing purposes",
                MARCH,
                MARCH,
            ),
        ),
        skipped=(),
        warnings=(),
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, []),
        ({K1: {}, K2: {"name": "tv"}}, [("imported 1", K1), ("tv", K2)]),
        ({K1: {"name": None, "createdAt": None}}, [("imported 1", K1)]),
        ({"hunter2": {"name": "short"}}, [("short", "hunter2")]),  # LLM-API let it in
        # Names that would upset a terminal, or hold the key.
        ({K1: {"name": "b\u001b[2Jb\n"}}, [("b [2Jb", K1)]),
        ({K1: {"name": f"key {K1}"}}, [("imported 1", K1)]),
    ],
)
def test_fields_may_be_missing(content: Any, found: list[tuple[str, str]]) -> None:
    assert [(key.name, key.key) for key in parse(content).keys] == found


def test_a_key_that_can_be_guessed_is_warned_of() -> None:
    file = parse({"hunter2": {"name": "bob"}, K1: {"name": "amy"}})
    assert file.warnings == (
        "entry 1 (bob): the key has only 7 characters and can be guessed: replace it soon",
    )


AN_OBJECT = ": must be an object with the keys as its names, as LLM-API writes it"
BEHIND = "entry 1: what stands behind a key must be an object: {"
FIELDS = "entry 1: holds something else than name, description, createdAt, lastActivity"
TIME = "must be a time like 2024-03-05T10:00:00.000Z, or null"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (7, AN_OBJECT),
        ([K1], AN_OBJECT),
        ([{"key": K1, "name": "bob"}], AN_OBJECT),
        # A name must not become a key because the key stands elsewhere.
        ({"bob": K1}, BEHIND),
        ({K1: "bob"}, BEHIND),
        ({K1: None}, BEHIND),
        ({K1: True}, BEHIND),
        ({K1: [K2]}, BEHIND),
        ({"keys": [K1]}, BEHIND),
        ({"bob": {"key": K1}}, FIELDS),
        ({"keys": {K1: {"name": "bob"}}}, FIELDS),
        ({K1: {"name": "bob", "active": False}}, FIELDS),
        ({K1: {"createdat": "2024-03-05T10:00:00Z"}}, f"{FIELDS}, did you mean 'createdAt'?"),
        ({K1: {"name": ["bob"]}}, "entry 1: its name must be text, or null"),
        ({K1: {"description": 7}}, "entry 1: its description must be text, or null"),
        ({K1: {"createdAt": "yesterday"}}, f"entry 1: its createdAt {TIME}"),
        ({K1: {"lastActivity": 1709632800}}, f"entry 1: its lastActivity {TIME}"),
        ({K1: {"lastActivity": "2024-03-05T10:00:00"}}, f"entry 1: its lastActivity {TIME}"),
        ({" " + K1: {}}, "entry 1: the key has spaces around it, or unprintable characters"),
        ({"a\nb": {}}, "entry 1: the key has spaces around it, or unprintable characters"),
        ({"x" * 513: {}}, "entry 1: the key must have 1 to 512 characters"),
        ({"": {}}, "entry 1: the key must have 1 to 512 characters"),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(content: Any, said: str) -> None:
    (found,) = problems_of(content)
    assert found.startswith(said)


def test_every_bad_entry_is_named() -> None:
    found = problems_of({K1: 7, "ok": {}, K2: {"key": K1}})
    assert [text.split(":")[0] for text in found] == ["entry 1", "entry 3"]


def test_a_byte_order_mark_is_no_text() -> None:
    data = json.dumps({K1: {"name": "José"}}, ensure_ascii=False).encode("utf-8-sig")
    assert parse_legacy(data, "f").keys[0].name == "José"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not valid JSON"),
        (b'{"bob": "3f9a', "is not valid JSON"),
        (b"\0" * 100, "is not valid JSON"),
        (b'["3f9a8b7c6d5e4f3a",]', "line 1, column 20: the comma behind the last entry must go"),
        (b"{k3f9a8b7c: 1}", "line 1, column 2: names stand in double quotes"),
        (b'["\xff"]', "is not text in UTF-8"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "holds a number that is too long"),
        (b'{"3f9a8b7c6d5e4f3a": {}, "3f9a8b7c6d5e4f3a": {}}', "holds the same name twice"),
    ],
)
def test_file_that_is_no_json_is_refused_without_repeating_it(data: bytes, said: str) -> None:
    with pytest.raises(InvalidFiles, match=said) as caught:
        parse_legacy(data, "authKeys.json")
    assert "3f9a" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "description", "createdAt", "lastActivity", K1])
            | st.text(max_size=20),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def outcome_of(data: bytes) -> LegacyFile | InvalidFiles:
    try:
        return parse_legacy(data, "f")
    except InvalidFiles as error:
        return error


@given(JSON)
def test_any_json_is_taken_or_refused(content: Any) -> None:
    outcome = outcome_of(json.dumps(content).encode())
    if isinstance(outcome, InvalidFiles):
        assert outcome.problems
        assert K1 not in str(outcome)
    else:
        assert {key.key for key in outcome.keys} <= content.keys()
        assert all(0 < len(key.key) <= 512 and key.name for key in outcome.keys)


@given(st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    outcome = outcome_of(data)
    assert isinstance(outcome, LegacyFile) or outcome.problems
