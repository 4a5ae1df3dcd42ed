"""What a request may ask for: each field, at its limit and over it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.config.settings import RequestSettings
from gateway.errors import BadRequest
from gateway.proxy.bounds import Bounds
from tests.proxy.bounded import KINDS, checked, honest_tools, nested, refused, text, tools

#: Setting, its value, a body at the limit, and one over it.
LIMITS: list[tuple[str, int, dict[str, Any], dict[str, Any]]] = [
    *(("answers", 4, {name: 4}, {name: 5}) for name in ("n", "n_cmpl", "best_of")),
    *(("logprobs", 5, {name: 5}, {name: 6}) for name in ("n_probs", "logprobs", "top_logprobs")),
    *(("last_n", 9, {name: 9}, {name: 10}) for name in ("repeat_last_n", "dry_penalty_last_n")),
    ("last_n", 9, {"repeat_last_n": -1}, {"repeat_last_n": -2}),
    ("last_n", 9, {"repeat_last_n": 9.5 - 0.5}, {"repeat_last_n": 1e9}),
    ("last_n", 9, {"repeat_last_n": 0}, {"repeat_last_n": -(2**32) + 10**8}),
    ("last_n", 9, {"speculative.n_max": 9}, {"speculative.n_max": 10}),
    ("list_items", 3, {"stop": ["a"] * 3}, {"stop": ["a"] * 4}),
    ("list_items", 3, {"stop_sequences": ["a"] * 3}, {"stop_sequences": ["a"] * 4}),
    ("list_items", 3, {"samplers": "kkk"}, {"samplers": "kkkk"}),
    ("list_items", 3, {"samplers": ["dry"] * 3}, {"samplers": ["dry"] * 4}),
    ("list_items", 3, {"lora": [{"id": 0}] * 3}, {"lora": [{"id": 0}] * 4}),
    *(
        ("list_items", 3, {name: ["a"] * 3}, {name: ["a"] * 4})
        for name in (
            *("dry_sequence_breakers", "preserved_tokens", "grammar_triggers"),
            *("response_fields", "reasoning_budget_end_tags"),
        )
    ),
    ("list_bytes", 50, {"stop": text(50)}, {"stop": text(51)}),
    ("list_bytes", 50, {"stop": [text(25)] * 2}, {"stop": [text(25), text(26)]}),
    ("logit_bias", 2, {"logit_bias": {"1": 1, "2": 1}}, {"logit_bias": {"1": 1, "2": 1, "3": 1}}),
    ("logit_bias", 2, {"logit_bias": [[1, 0], [2, 0]]}, {"logit_bias": [[1, 0]] * 3}),
    ("logit_bias", 2, {"logit_bias": [["ab", 1]]}, {"logit_bias": [["abc", 1]]}),
    ("grammar_bytes", 40, {"grammar": "root ::= [a-z]"}, {"grammar": f'root ::= "{text(40)}"'}),
    ("grammar_depth", 2, {"grammar": 'root ::= (("a"))'}, {"grammar": 'root ::= ((("a")))'}),
    ("grammar_parts", 9, {"grammar": "root ::= [a]{9}"}, {"grammar": "root ::= [a]{1,10}"}),
    (
        "grammar_choices",
        6,
        {"grammar": "root ::= [a]? [a]?"},
        {"grammar": "root ::= " + "[a]? " * 5},
    ),
    ("tools", 2, tools({}, {}), tools({}, {}, {})),
    ("schema_depth", 9, {"json_schema": nested(3)}, {"json_schema": nested(9)}),
    (
        "grammar_parts",
        9,
        {"json_schema": {"type": "array", "minItems": 4, "maxItems": 5}},
        {"json_schema": {"type": "array", "minItems": 4, "maxItems": 6}},
    ),
    ("grammar_parts", 9, tools({"maxItems": 4}, {"maxItems": 5}), tools({"maxItems": 10**9})),
    ("schema_length", 9, {"json_schema": {"maxLength": 9}}, {"json_schema": {"maxLength": 10}}),
    ("schema_length", 9, tools({"minLength": 9}), tools({"minLength": 10})),
    (
        "schema_properties",
        3,
        {"json_schema": {"properties": {key: {} for key in "abc"}, "enum": [1, 2, 3, 4]}},
        {"json_schema": {"properties": {key: {} for key in "abcd"}}},
    ),
    (
        "schema_properties",
        3,
        {"json_schema": {"anyOf": [{}] * 3}},
        {"json_schema": {"anyOf": [{}] * 4}},
    ),
    (
        "grammar_parts",
        9,
        {"json_schema": {"pattern": "a{9}"}},
        {"json_schema": {"pattern": "(a{3}){4}"}},
    ),
    (
        "grammar_choices",
        6,
        {"json_schema": {"pattern": "a?a?"}},
        {"json_schema": {"pattern": "a?" * 5}},
    ),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("setting", "value", "good", "bad"),
    LIMITS,
    ids=[f"{i}-{one[0]}" for i, one in enumerate(LIMITS)],
)
def test_each_limit_holds_in_every_dialect(
    kind: str, setting: str, value: int, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    checked(good, kind, **{setting: value})
    error = refused(bad, kind, **{setting: value})
    (name,) = bad
    assert error.param == name
    assert error.code == "request_limit"
    assert f"`{name}`" in error.message
    assert f"(limits.request.{setting})" in error.message


@pytest.mark.parametrize("kind", KINDS)
def test_body_of_an_honest_client_is_within_the_limits(kind: str) -> None:
    body = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": text(500)}]}] * 300,
        "stop": ["a", "b"] * 8,
        "logit_bias": {str(i): -100 for i in range(300)},
        "top_logprobs": 20,
        "logprobs": True,
        "n": 1,
        "repeat_last_n": -1,
        "response_format": {"type": "json_object"},
        "samplers": ["dry", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"],
        "dry_sequence_breakers": ["\n", ":", '"', "*"],
        **honest_tools(),
    }
    checked(body, kind)


@pytest.mark.parametrize(
    ("body", "kind", "name", "setting"),
    [
        ({"messages": [{"role": "user"}] * 4097}, "chat", "messages", "messages"),
        ({"input": [{"role": "user"}] * 4097}, "responses", "input", "messages"),
        ({"system": [{"text": "a"}] * 4097}, "anthropic", "system", "messages"),
        ({"messages": [{"content": [{}] * 2049}] * 2}, "chat", "messages", "parts"),
        ({"messages": [{"content": [{}] * 4097}]}, "anthropic", "messages", "parts"),
        ({"input": [{"content": [{}] * 4097}]}, "responses", "input", "parts"),
        ({"prompt": ["hello there, you"] * 257}, "completion", "prompt", "prompts"),
        ({"prompt": ["a"] * 257}, "completion", "prompt", "prompts"),  # in little space
        ({"prompt": [[1, 2, 3, 4, 5, 6, 7, 8]] * 257}, "completion", "prompt", "prompts"),
        ({"prompt": [text(50)] * 129, "n": 2}, "completion", "prompt", "prompts"),
        ({"prompt": [text(50)] * 129, "n_cmpl": 2}, "completion", "prompt", "prompts"),
        ({"input": ["abc"] * 2049}, "none", "input", "inputs"),
        ({"content": ["abc"] * 2049}, "none", "content", "inputs"),
        ({"documents": ["abc"] * 2049}, "none", "documents", "inputs"),
        ({"texts": ["abc"] * 2049}, "none", "texts", "inputs"),
        ({"input_extra": [{}] * 4097}, "none", "input_extra", "parts"),
    ],
)
def test_too_many_are_refused(body: dict[str, Any], kind: str, name: str, setting: str) -> None:
    error = refused(body, kind)
    assert error.param == name
    assert f"(limits.request.{setting})" in error.message


def test_a_prompt_of_tokens_is_one() -> None:
    checked({"prompt": [1] * 10_000}, "completion")
    checked({"prompt": [1, "a"] * 10_000}, "completion")
    checked({"input": [1] * 10_000}, "none")
    checked({"prompt": ["hello there, you"] * 256}, "completion")


@pytest.mark.parametrize(
    "body",
    [
        {"chat_parser": "{}"},
        {"grammar_triggers": [{"type": 2, "value": "(a*)*b"}], "grammar_lazy": True},
        {"grammar_triggers": [{"type": "pattern", "value": "(a*)*b"}]},
        {"sse_ping_interval": 0},
    ],
)
def test_field_that_nobody_needs_is_refused(body: dict[str, Any]) -> None:
    assert refused(body).param == next(iter(body))


@pytest.mark.parametrize("kind", KINDS)
def test_ignore_eos_needs_an_end(kind: str, subtests: pytest.Subtests) -> None:
    bounds = Bounds(RequestSettings())
    own = {"anthropic": "max_tokens", "responses": "max_output_tokens"}.get(kind, "n_predict")
    endless: dict[str, Any]
    for endless in ({}, {own: -1}, {own: 2**32 - 1}, {own: "9"}, {"max_tokens": 5, own: -1}):
        with subtests.test(f"{endless!r:.80}"):
            with pytest.raises(BadRequest, match="needs a limit") as caught:
                bounds.answer({"ignore_eos": True, **endless}, kind, None, ends=False)
            assert caught.value.param == "ignore_eos"
    assert not bounds.answer({"ignore_eos": True, own: 5}, kind, None, ends=False)
    assert not bounds.answer({"ignore_eos": True}, kind, None, ends=True)
    assert not bounds.answer({"ignore_eos": False}, kind, None, ends=False)
    body = {"ignore_eos": True}
    assert bounds.answer(body, kind, 7, ends=False)
    assert 7 in body.values()


@pytest.mark.parametrize("kind", KINDS)
def test_length_that_an_operator_set_is_cut_to_the_limit(kind: str) -> None:
    bounds = Bounds(RequestSettings())
    own = {"anthropic": "max_tokens", "responses": "max_output_tokens"}.get(kind, "max_tokens")
    for value, left in ((50, 7), (7, 7), (3, 3)):
        body = {own: value}
        bounds.answer(body, kind, 7, ends=False, fixed={own: value})
        assert body == {own: left}


def test_the_lower_limit_of_length_holds(subtests: pytest.Subtests) -> None:
    bounds = Bounds(RequestSettings(max_tokens=10))
    for of_key, most, whose in ((None, 10, "limits.request"), (5, 5, "key"), (50, 10, "request")):
        with subtests.test(f"{of_key!r:.80}"):
            body: dict[str, Any] = {}
            assert bounds.answer(body, "chat", of_key, ends=False)
            assert body == {"max_tokens": most}
            with pytest.raises(BadRequest, match=whose):
                bounds.answer({"max_tokens": most + 1}, "chat", of_key, ends=False)


def test_ordinary_bodies_cost_next_to_nothing() -> None:
    bounds = Bounds(RequestSettings())
    body = {"model": "m", "messages": [{}], "stream": True, "temperature": 1, "max_tokens": 9}

    def once() -> float:
        start = time.perf_counter()
        for _ in range(1000):
            bounds.check(body, "chat", 300)
        return (time.perf_counter() - start) / 1000

    assert min(once() for _ in range(5)) < 20e-6  # measured: 0.3 µs
