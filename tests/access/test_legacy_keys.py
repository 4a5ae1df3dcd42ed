"""The old key file in every shape it might have."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.legacy_keys import LegacyFile, LegacyKey, parse_legacy
from gateway.validation import InvalidFiles

K1, K2 = "3f9a8b7c6d5e4f3a2b1c", "b1946ac92492d2347c62"
MARCH = datetime(2024, 3, 5, 10, tzinfo=UTC)


def parse(content: Any) -> LegacyFile:
    return parse_legacy(json.dumps(content).encode(), "authKeys.json")


def keys_of(content: Any) -> list[tuple[str, str]]:
    return [(key.name, key.key) for key in parse(content).keys]


def problems_of(content: Any) -> list[str]:
    with pytest.raises(InvalidFiles) as caught:
        parse(content)
    text = str(caught.value)
    assert K1 not in text
    assert K2 not in text
    return [f"{problem.key}: {problem.message}" for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([], []),
        ({}, []),
        ([K1, K2], [("imported 1", K1), ("imported 2", K2)]),
        ({K1: {}, K2: {"name": "tv"}}, [("imported 1", K1), ("tv", K2)]),
        ({K1: {"lastActivity": "2024-03-05T10:00:00Z", "ip": "1.2.3.4"}}, [("imported 1", K1)]),
        ({K1: None, K2: True}, [("imported 1", K1), ("imported 2", K2)]),
        ({"bob": K1, "amy": K2}, [("bob", K1), ("amy", K2)]),
        ({"bob": {"key": K1}, "amy": {"authKey": K2}}, [("bob", K1), ("amy", K2)]),
        ({"bob": {"apiKey": K1}, "amy": {"TOKEN": K2}}, [("bob", K1), ("amy", K2)]),
        ({K1: {"key": K2}}, [(K1, K2)]),  # an inner key field wins
        ([{"key": K1, "name": "bob"}, {"auth_key": K2, "user": "amy"}], [("bob", K1), ("amy", K2)]),
        ([{"token": K1, "client": "bob"}, K2], [("bob", K1), ("imported 2", K2)]),
        ({"keys": [K1]}, [("imported 1", K1)]),
        ({"authKeys": [{"key": K1, "name": "bob"}], "version": 2}, [("bob", K1)]),
        ({"authKeys": {"bob": K1}}, [("bob", K1)]),
        ({"keys": {K1: {"name": "bob"}}}, [("bob", K1)]),
        ({"keys": {"key": K1}, "bob": {"key": K2}}, [("keys", K1), ("bob", K2)]),
        ({"key": K1, "name": "bob"}, [("bob", K1)]),
        ({"authKey": K1}, [("imported 1", K1)]),
        ({"authKey": [K1, K2]}, [("imported 1", K1), ("imported 2", K2)]),
        ({"bob": {"key": K1, "name": "Robert"}}, [("Robert", K1)]),
        ({"bob": {"key": K1, "authKey": K1}}, [("bob", K1)]),
        # Names that would upset a terminal, or are the key itself.
        ({"b\u001b[2Jb": K1}, [("b [2Jb", K1)]),
        ([{"key": K1, "name": f"key {K1}"}], [("imported 1", K1)]),
    ],
)
def test_shapes(content: Any, found: list[tuple[str, str]]) -> None:
    assert keys_of(content) == found


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({K1: "bob"}, [("bob", K1)]),  # one side alone looks random
        ({K1: "Bob's phone"}, [("Bob's phone", K1)]),
        ({"Bob's phone": "hunter2"}, [("Bob's phone", "hunter2")]),  # spaces are in names
        ({K1: "2024-03-05T10:00:00.000Z"}, [("imported 1", K1)]),  # a date
        ({K1: 1709632800000}, [("imported 1", K1)]),
        ({K1: ""}, [("imported 1", K1)]),
        ({"bob": "hunter2"}, [("bob", "hunter2")]),  # nothing tells: the value
        # Both look random: as the others in the file.
        ({"geography-teacher-2": K1, "bob": K2}, [("geography-teacher-2", K1), ("bob", K2)]),
        ({K1: "geography-teacher-2", K2: "bob"}, [("geography-teacher-2", K1), ("bob", K2)]),
        ({K1: 1709632800000, "hunter2": "bob"}, [("imported 1", K1), ("bob", "hunter2")]),
    ],
)
def test_which_side_is_the_key(content: Any, found: list[tuple[str, str]]) -> None:
    assert keys_of(content) == found


@pytest.mark.parametrize(
    "value",
    [
        "2024-03-05T10:00:00Z",
        "2024-03-05T10:00:00.000Z",
        "2024-03-05 10:00:00",
        "2024-03-05T12:00:00+02:00",
        "Tue, 05 Mar 2024 10:00:00 GMT",
        "Tue Mar 05 2024 11:00:00 GMT+0100 (Central European Standard Time)",
        1709632800,
        1709632800.0,
        1709632800000,
        "1709632800000",
    ],
)
def test_times(value: Any) -> None:
    (in_field,) = parse([{"key": K1, "lastActivity": value, "created": value}]).keys
    assert (in_field.last_activity, in_field.created) == (MARCH, MARCH)
    (alone,) = parse({K1: value}).keys
    assert alone.last_activity == MARCH


@pytest.mark.parametrize("value", [None, 0, "", "never"])
def test_no_time(value: Any) -> None:
    file = parse([{"key": K1, "lastActivity": value, "expires": value}])
    assert file.keys[0].last_activity is file.keys[0].expires is None
    assert file.warnings == ()


def test_every_field() -> None:
    entry = {
        "name": "bob",
        "description": "his\nphone",
        "isAdmin": "true",
        "createdAt": 1709632800,
        "lastUsed": "2024-03-05T10:00:00Z",
        "expiresAt": "2024-03-05T10:00:00Z",
        "active": True,
        "revoked": False,
    }
    file = parse({K1: entry})
    assert file.keys == (
        LegacyKey("entry 1 (bob)", K1, "bob", "his phone", True, MARCH, MARCH, MARCH),
    )
    assert file.warnings == ()


@pytest.mark.parametrize("admin", [True, False, None])
def test_admin_is_told_apart_from_silence(admin: bool | None) -> None:
    entry = {"key": K1} if admin is None else {"key": K1, "admin": admin}
    assert parse([entry]).keys[0].admin is admin


@pytest.mark.parametrize(
    "entry",
    [
        {"active": False},
        {"active": True, "enabled": "no"},
        {"disabled": True},
        {"revoked": "2024-03-05T10:00:00Z"},
        {"deleted": 1},
        False,
    ],
)
def test_keys_that_are_switched_off_stay_off(entry: Any) -> None:
    file = parse({K1: entry, K2: {}})
    assert [key.key for key in file.keys] == [K2]
    assert file.skipped == ("entry 1: is switched off in the file",)


def test_warnings_name_the_entry_and_never_a_secret() -> None:
    file = parse(
        [
            {"key": "hunter2", "name": "bob", "ip": "1.2.3.4", K2: 1},
            {"key": K1, "lastActivity": "yesterday"},
        ]
    )
    assert file.warnings == (
        "entry 1: 'ip' isn't understood, and ignored",
        "entry 1: a field isn't understood, and ignored",
        "entry 1 (bob): the key has only 7 characters and can be guessed: replace it soon",
        "entry 2: its field 'lastactivity' must be a date; left empty",
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (7, [": must hold a list of keys, or an object with them"]),
        ("text", [": must hold a list of keys, or an object with them"]),
        ([7, None, [], ""], [f"entry {n}: the key must be text" for n in (1, 2, 3, 4)]),
        ([{"name": "bob"}, K1], ["entry 1: it holds no key"]),
        ({"bob": {"key": 12345678}}, ["entry 1: the key must be text"]),
        ([" " + K1], ["entry 1: the key has spaces around it, or unprintable characters"]),
        (["a\nb"], ["entry 1: the key has spaces around it, or unprintable characters"]),
        (["x" * 513], ["entry 1: the key has over 512 characters"]),
        ([{"key": K1, "token": K2}], ["entry 1: it holds two different keys"]),
        ([{"key": K1, "KEY": K1}], ["entry 1: two of its fields have nearly the same name"]),
        ({"keys": [K1], "others": [K2]}, [": holds other lists or objects beside 'keys'"]),
        ({K1: "geography-teacher-2"}, ["entry 1: it isn't clear which side is the key"]),
        ({"a b": "c d"}, None),
        ({K1: [K2]}, ["entry 1: it isn't clear which side is the key"]),
        # A name must not become a key because the key's field has a name we don't know.
        ({"bob": {"password": "hunter2"}}, None),
        ({"bob": {"login": {"key": K1}}}, None),
        ({"bob": {K1: {"name": "x"}}}, None),
        ({"geography-teacher-2": {"passwd": K1}}, None),
        ({"config": {"name": "x"}, "name": {}}, ["entry 2: it holds no key"]),
        # Names are outside in these files, so an entry without a key has none.
        ({"bob": {"name": "Bob"}, "amy": {"key": K1}}, ["entry 1: it holds no key"]),
        ({"bob": None, "amy": {"key": K1}}, ["entry 1: it holds no key"]),
        ({"bob": True, "amy": K1}, ["entry 1: it holds no key"]),
        ({"bob": 1709632800, "amy": K1}, ["entry 1: it holds no key"]),
        ({"version": 1, K1: {}}, ["entry 1: its field 'value' must be a date"]),
        ([{"key": K1, "admin": "perhaps"}], ["entry 1: its field 'admin' must be true or false"]),
        ([{"key": K1, "active": "perhaps"}], ["entry 1: its field 'active' must be true or false"]),
        ([{"key": K1, "expires": "soon"}], ["entry 1: its field 'expires' must be a date"]),
        ([{"key": K1, "name": ["bob"]}], ["entry 1: its name must be text"]),
    ],
)
def test_what_is_not_understood_is_a_problem(content: Any, said: list[str] | None) -> None:
    found = problems_of(content)
    if said is not None:
        assert found == said
    else:
        assert len(found) == 1
        assert "it isn't clear which" in found[0]


def test_encodings() -> None:
    text = json.dumps({"José": K1}, ensure_ascii=False)
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert parse_legacy(text.encode(encoding), "f").keys[0].name == "José"


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
def test_what_is_no_json(data: bytes, said: str) -> None:
    with pytest.raises(InvalidFiles, match=said) as caught:
        parse_legacy(data, "authKeys.json")
    assert "3f9a" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["key", "name", "lastActivity", "admin", "keys", "active", K1])
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
def test_any_json_is_understood_or_refused(content: Any) -> None:
    outcome = outcome_of(json.dumps(content).encode())
    if isinstance(outcome, InvalidFiles):
        assert outcome.problems
        assert K1 not in str(outcome)
    else:
        assert all(0 < len(key.key) <= 512 and key.name for key in outcome.keys)


@given(st.binary(max_size=60))
def test_any_bytes_are_understood_or_refused(data: bytes) -> None:
    outcome = outcome_of(data)
    assert isinstance(outcome, LegacyFile) or outcome.problems
