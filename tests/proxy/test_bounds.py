"""What a request may ask for: each field, at its limit and over it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from gateway.config.settings import RequestSettings
from gateway.errors import BadRequest
from gateway.proxy.bounds import Bounds, all_of

KINDS = ("chat", "responses", "anthropic", "completion", "none")


def checked(body: dict[str, Any], kind: str = "chat", **settings: Any) -> None:
    bounds = Bounds(RequestSettings(**settings))
    if (later := bounds.check(body, kind, len(json.dumps(body)))) is not None:
        all_of(later)


def refused(body: dict[str, Any], kind: str = "chat", **settings: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        checked(body, kind, **settings)
    return caught.value


def nested(levels: int) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(levels):
        schema = {"anyOf": [schema]}
    return schema


def tools(*schemas: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"parameters": one}} for one in schemas]}


def text(size: int) -> str:
    return "a" * size


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
#: Where else a schema stands.
PLACES: dict[str, Any] = {
    "json_schema": lambda schema: {"json_schema": schema},
    "response_format": lambda schema: {
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}
    },
    "json_object": lambda schema: {"response_format": {"type": "json_object", "schema": schema}},
    "text": lambda schema: {"text": {"format": {"type": "json_schema", "schema": schema}}},
    "output_config": lambda schema: {"output_config": {"format": {"schema": schema}}},
    "output_format": lambda schema: {"output_format": {"schema": schema}},
    "tools": tools,
    "tools of Responses": lambda schema: {"tools": [{"type": "function", "parameters": schema}]},
    "tools of Anthropic": lambda schema: {"tools": [{"name": "f", "input_schema": schema}]},
    "behind 254 levels": lambda schema: {"json_schema": {"x": schema, "seed": 2**70}},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("setting", "value", "good", "bad"),
    LIMITS,
    ids=[f"{i}-{one[0]}" for i, one in enumerate(LIMITS)],
)
def test_each_limit_in_every_dialect(
    kind: str, setting: str, value: int, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    checked(good, kind, **{setting: value})
    error = refused(bad, kind, **{setting: value})
    (name,) = bad
    assert error.param == name
    assert error.code == "request_limit"
    assert f"`{name}`" in error.message
    assert f"(limits.request.{setting})" in error.message


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"maxItems": 10**9}},
        {"properties": {"a": {"pattern": "(a|a)?" * 400}}},
        {"properties": {f"p{i}": {} for i in range(600)}},
        {
            "properties": {
                f"p{i}": {"properties": {f"q{j}": {} for j in range(400)}} for i in range(9)
            }
        },
        {"$ref": "#/$defs/a", "$defs": {"a": {"minLength": 2**31}}},
        nested(120),
    ],
    ids=["items", "pattern", "wide", "wide in all", "ref", "deep"],
)
def test_schemas_wherever_they_stand(place: str, schema: Any) -> None:
    error = refused(PLACES[place](schema))
    assert "limits.request." in error.message
    assert error.param in place or error.param == "response_format" or place.startswith("behind")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("schema", "good"),
    [
        ({"minItems": 5, "maxItems": 2}, {"minItems": 5, "maxItems": 5}),
        ({"minLength": 5, "maxLength": 2}, {"minLength": 2, "maxLength": 5}),
        ({"minimum": 5, "maximum": 1}, {"minimum": 1, "maximum": 1.5}),
        (
            {"type": "integer", "minimum": 5, "exclusiveMaximum": 5},
            {"type": "integer", "minimum": 5, "exclusiveMaximum": 6},
        ),
        (
            {"type": "integer", "exclusiveMinimum": 5, "maximum": 5},
            {"exclusiveMinimum": 5, "exclusiveMaximum": 5.5},
        ),
        ({"pattern": "^(ab){5,2}$"}, {"pattern": "^a{2,5}b{3,}$"}),
    ],
)
def test_what_is_at_least_more_than_at_most(
    place: str, schema: dict[str, Any], good: dict[str, Any]
) -> None:
    """llama-server b11549 writes its grammar until it has all memory, after its client left too."""
    checked(PLACES[place]({"properties": {"a": good}}))
    error = refused(PLACES[place]({"properties": {"a": schema}}))
    assert "above" in error.message
    assert "limits.request" not in error.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_grammar_that_is_at_least_more_than_at_most(kind: str) -> None:
    error = refused({"grammar": 'root ::= "a"{5,2}'}, kind)
    assert error.param == "grammar"
    assert "above" in error.message


def test_a_schema_may_not_be_too_long() -> None:
    assert "schema_bytes" in refused(tools({"description": text(2**20)})).message


def typed(levels: int, *types: Any, **beside: Any) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"type": list(types), "items": schema, "properties": {"a": schema}, **beside}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        typed(12, "array", "object"),  # each level is written out for each type
        typed(12, "array", "array"),
        typed(12, None, "object"),
        typed(2, *["array"] * 8),
        typed(2, ["array", "array"]),
        typed(12, "object", "string", allOf=[]),
        {"type": ["object", "array", "x"], "description": text(2**19)},
        {"type": ["string"] * 5000},  # nothing else stands beside it
        {"properties": {"_" * 1025: {}}},
        {"$defs": {"é" * 1025: {}}},
        {"$ref": "#/$defs/" + text(1025)},
    ],
)
def test_schemas_that_grow_where_they_are_read(schema: Any) -> None:
    message = refused({"json_schema": schema}).message
    assert "limits.request.schema_" in message
    assert "the that" not in message
    assert "limits.request.schema_" in refused(tools(schema)).message


def test_a_name_of_a_tool_may_not_be_too_long() -> None:
    tool = {"type": "function", "function": {"name": text(1025), "parameters": {}}}
    assert "schema_bytes" in refused({"tools": [tool]}).message


def test_lists_of_types_that_people_write() -> None:
    optional: Any = {"type": ["string", "null"], "description": text(500), "maxLength": 100}
    for _ in range(30):
        optional = {"type": ["object", "null"], "properties": {"a": optional, "b": optional}}
        optional["properties"]["b"] = {"type": ["array", "null"], "items": {"type": "string"}}
    either = typed(4, "object", "array", "string", "null", description=text(200))
    for schema in (optional, either, {"type": "object", "properties": {"type": optional}}):
        checked({"json_schema": schema})
        checked(tools(*[schema] * 3))


def test_the_greatest_numbers_that_tools_have() -> None:
    """Java's, of what llama-server doesn't write out; a column's of MySQL in a pattern."""
    many = {"type": "object", "minProperties": 1, "maxProperties": 2**31 - 1}
    long = {"type": "string", "minLength": 1, "maxLength": 2**31 - 1}
    column = {"type": "string", "pattern": "^.{0,65535}$"}
    checked(tools(many, *[long] * 30, column))
    assert "schema_length" in refused(tools({"maxLength": 2**31})).message


def honest_tools() -> dict[str, Any]:
    """What agents send: 60 tools in 100 KB."""
    field = {"type": "string", "description": text(60), "maxLength": 65536, "pattern": "^[a-z]*$"}
    schema = {
        "type": "object",
        "properties": {
            **{f"field{i}": field for i in range(10)},
            "list": {"type": "array", "maxItems": 100, "items": {"enum": ["a", "b"]}},
        },
    }
    return tools(*[schema] * 60)


@pytest.mark.parametrize("kind", KINDS)
def test_what_honest_clients_send(kind: str) -> None:
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
def test_how_many(body: dict[str, Any], kind: str, name: str, setting: str) -> None:
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
def test_what_nobody_needs(body: dict[str, Any]) -> None:
    assert refused(body).param == next(iter(body))


@pytest.mark.parametrize("kind", KINDS)
def test_ignore_eos_needs_an_end(kind: str) -> None:
    bounds = Bounds(RequestSettings())
    own = {"anthropic": "max_tokens", "responses": "max_output_tokens"}.get(kind, "n_predict")
    endless: dict[str, Any]
    for endless in ({}, {own: -1}, {own: 2**32 - 1}, {own: "9"}, {"max_tokens": 5, own: -1}):
        with pytest.raises(BadRequest, match="needs a limit") as caught:
            bounds.answer({"ignore_eos": True, **endless}, kind, None, ends=False)
        assert caught.value.param == "ignore_eos"
    assert not bounds.answer({"ignore_eos": True, own: 5}, kind, None, ends=False)
    assert not bounds.answer({"ignore_eos": True}, kind, None, ends=True)
    assert not bounds.answer({"ignore_eos": False}, kind, None, ends=False)
    body = {"ignore_eos": True}
    assert bounds.answer(body, kind, 7, ends=False)
    assert 7 in body.values()


def test_the_lower_limit_of_length_holds() -> None:
    bounds = Bounds(RequestSettings(max_tokens=10))
    for of_key, most, whose in ((None, 10, "limits.request"), (5, 5, "key"), (50, 10, "request")):
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


def test_schemas_are_measured_once() -> None:
    bounds = Bounds(RequestSettings())
    body = honest_tools()
    later = bounds.check(body, "chat", 100_000)
    assert later is not None
    all_of(later)
    assert bounds.check(body, "chat", 100_000) is None


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("completion", {"prompt": text(6000)}, "prompt"),
        ("completion", {"prompt": ["\u00e4" * 1500, text(3000)]}, "prompt"),
        ("none", {"content": "data:" + text(6000)}, "content"),
        ("none", {"input": [text(100)] * 60, "model": "m"}, "input"),
        ("chat", {"messages": [{"role": "user", "content": text(3000)}] * 2}, "messages"),
        ("responses", {"instructions": text(2000), "input": [{"content": text(4000)}]}, "input"),
        ("anthropic", {"system": text(4000), "messages": [{"content": text(2000)}]}, "system"),
        (
            "anthropic",
            {"messages": [{"content": [{"source": {"type": "text", "data": text(6000)}}]}]},
            "messages",
        ),
    ],
)
def test_texts_together(kind: str, body: dict[str, Any], field: str) -> None:
    error = refused(body, kind, text_bytes=5000)
    assert error.param == field
    assert "limits.request.text_bytes" in error.message
    checked(body, kind, text_bytes=7000)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + text(9000)}},
        {"type": "input_audio", "input_audio": {"data": text(9000), "format": "wav"}},
        {"type": "image", "source": {"type": "base64", "data": text(9000)}},
    ],
)
def test_media_are_no_text(part: dict[str, Any]) -> None:
    checked({"messages": [{"role": "user", "content": [part]}]}, text_bytes=1024)
