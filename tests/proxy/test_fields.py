"""The names of a field: one table, whoever sets or strips one of them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.proxy.body import shape
from gateway.proxy.fields import FIELDS, LENGTH, limit_length, shapings, take_out

KINDS = ("chat", "responses", "anthropic", "completion", "none")


def put(body: dict[str, Any], place: Any, value: Any) -> None:
    if isinstance(place, str):
        body[place] = value
    else:
        body.setdefault(place[0], {})[place[1]] = value


def shaped(kind: str, body: dict[str, Any], **options: Any) -> dict[str, Any]:
    found = shapings(options.get("strip", ()), options.get("fixed", {}))
    assert found is not None
    shape(body, *found[kind])
    return body


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("one", FIELDS, ids=lambda one: str(one.names[0]))
def test_what_is_stripped_cannot_be_said_by_another_name(kind: str, one: Any) -> None:
    for name in one.names:
        if not isinstance(name, str):
            continue
        body: dict[str, Any] = {"seed": 1}
        for other in one.names:
            put(body, other, 5)
        assert shaped(kind, body, strip=(name,)) == {"seed": 1}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LENGTH.names)
def test_what_is_set_holds_whatever_the_client_calls_it(kind: str, name: str) -> None:
    body = dict.fromkeys(map(str, LENGTH.names), 99)
    after = shaped(kind, body, fixed={name: 7})
    ((said, value),) = after.items()
    assert value == 7
    assert said in LENGTH.read[kind]
    assert said == name or name not in LENGTH.read[kind]


def test_stop_has_another_name_at_anthropic() -> None:
    fixed = {"stop": ["END"]}
    assert shaped("anthropic", {"stop_sequences": ["x"]}, fixed=fixed) == {
        "stop_sequences": ["END"]
    }
    assert shaped("chat", {"stop_sequences": ["x"]}, fixed=fixed) == fixed


def test_a_set_grammar_stands_alone() -> None:
    body = {"response_format": {"type": "json_object"}, "text": {"format": {}, "verbosity": "low"}}
    assert shaped("responses", body, fixed={"grammar": "g"}) == {
        "grammar": "g",
        "text": {"verbosity": "low"},
    }
    # To strip it is another matter: a schema is not a grammar.
    assert shaped("chat", {"json_schema": {}}, strip=("grammar",)) == {"json_schema": {}}


def test_objects_are_merged_as_before() -> None:
    fixed = {"chat_template_kwargs": {"b": 2}, "logprobs": True, "top_logprobs": 3}
    body = {"chat_template_kwargs": {"a": 1}, "n_probs": 9, "top_logprobs": 9}
    assert shaped("chat", body, fixed=fixed) == {
        "chat_template_kwargs": {"a": 1, "b": 2},
        "logprobs": True,
        "top_logprobs": 3,
    }
    assert shapings((), {}) is None


def test_an_object_that_held_nothing_else_goes_too() -> None:
    body: dict[str, Any] = {"text": {"format": 1}, "thinking": "not an object"}
    take_out(body, ("text", "format"))
    take_out(body, ("thinking", "budget_tokens"))
    assert body == {"thinking": "not an object"}


@pytest.mark.parametrize(
    ("kind", "body", "after"),
    [
        ("chat", {}, {"max_tokens": 50}),
        ("chat", {"max_tokens": 50}, {"max_tokens": 50}),
        ("chat", {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ("chat", {"max_tokens": -1}, {"max_tokens": 50}),
        ("chat", {"max_tokens": 5, "n_predict": -1}, {"max_tokens": 5}),
        ("chat", {"n_predict": 5}, {"n_predict": 5, "max_tokens": 5}),
        ("chat", {"max_output_tokens": 5}, {"max_output_tokens": 5, "max_tokens": 50}),
        ("chat", {"n_predict": -(2**32) + 1000}, {"max_tokens": 50}),  # 32 bits are left of it
        ("completion", {"n_predict": 0}, {"n_predict": 0, "max_tokens": 0}),
        ("completion", {"max_completion_tokens": -1}, {"max_tokens": 50}),
        ("none", {"n_predict": -1}, {"max_tokens": 50}),
        ("responses", {}, {"max_output_tokens": 50}),
        ("responses", {"max_tokens": 5}, {"max_tokens": 5, "max_output_tokens": 5}),
        ("anthropic", {"n_predict": 5}, {"n_predict": 5, "max_tokens": 50}),
        ("anthropic", {"max_tokens": 12.5}, {"max_tokens": 12.5}),
    ],
)
def test_length_is_bounded(kind: str, body: dict[str, Any], after: dict[str, Any]) -> None:
    before = dict(body)
    assert limit_length(body, kind, 50, "max_tokens of the key") == (before != after)
    assert body == after


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LENGTH.names)
@pytest.mark.parametrize("value", [51, 50.5, 2**32 - 1, 2**70, "10", True, [5]])
def test_more_than_the_limit_is_refused_by_name(kind: str, name: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        limit_length({name: value}, kind, 50, "of the key")
    assert caught.value.param == name
    assert f"`{name}`" in caught.value.message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LENGTH.names)
@pytest.mark.parametrize("other", LENGTH.names)
def test_what_a_personality_sets_wins_over_the_model_by_any_name(
    kind: str, name: Any, other: Any
) -> None:
    found = shapings((), {other: 99, "seed": 1}, {kind: {name: 7}})
    assert found is not None
    body: dict[str, Any] = {}
    shape(body, *found[kind])
    assert sorted(map(str, body.values())) == ["1", "7"]


def test_grammar_of_a_personality_wins_over_a_schema_of_the_model() -> None:
    fixed: dict[str, Any] = {"response_format": {"type": "json_object"}, "text": {"format": 1}}
    found = shapings((), fixed, {"chat": {"grammar": "g"}})
    assert found is not None
    assert found["chat"].fixed == {"grammar": "g"}
    assert fixed["text"] == {"format": 1}, "the model's own is as it was"
