"""What grammars and schemas may ask for, wherever they stand."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.settings import RequestSettings
from gateway.proxy.bounds import Bounds, all_of
from tests.proxy.bounded import KINDS, checked, honest_tools, nested, refused, text, tools

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
def test_schema_is_bounded_wherever_it_stands(place: str, schema: Any) -> None:
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
def test_schema_with_minimum_above_maximum_is_refused(
    place: str, schema: dict[str, Any], good: dict[str, Any]
) -> None:
    """llama-server b11549 writes its grammar until it has all memory, after its client left too."""
    checked(PLACES[place]({"properties": {"a": good}}))
    error = refused(PLACES[place]({"properties": {"a": schema}}))
    assert "above" in error.message
    assert "limits.request" not in error.message


@pytest.mark.parametrize("kind", KINDS)
def test_grammar_with_minimum_above_maximum_is_refused(kind: str) -> None:
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
def test_schema_that_grows_when_read_is_refused(schema: Any) -> None:
    message = refused({"json_schema": schema}).message
    assert "limits.request.schema_" in message
    assert "the that" not in message
    assert "limits.request.schema_" in refused(tools(schema)).message


def test_a_name_of_a_tool_may_not_be_too_long() -> None:
    tool = {"type": "function", "function": {"name": text(1025), "parameters": {}}}
    assert "schema_bytes" in refused({"tools": [tool]}).message


def test_list_of_types_that_people_write_is_taken() -> None:
    optional: Any = {"type": ["string", "null"], "description": text(500), "maxLength": 100}
    for _ in range(30):
        optional = {"type": ["object", "null"], "properties": {"a": optional, "b": optional}}
        optional["properties"]["b"] = {"type": ["array", "null"], "items": {"type": "string"}}
    either = typed(4, "object", "array", "string", "null", description=text(200))
    for schema in (optional, either, {"type": "object", "properties": {"type": optional}}):
        checked({"json_schema": schema})
        checked(tools(*[schema] * 3))


def test_greatest_numbers_of_real_tools_are_taken() -> None:
    """Java's, of what llama-server doesn't write out; a column's of MySQL in a pattern."""
    many = {"type": "object", "minProperties": 1, "maxProperties": 2**31 - 1}
    long = {"type": "string", "minLength": 1, "maxLength": 2**31 - 1}
    column = {"type": "string", "pattern": "^.{0,65535}$"}
    checked(tools(many, *[long] * 30, column))
    assert "schema_length" in refused(tools({"maxLength": 2**31})).message


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
def test_texts_of_a_request_are_counted_together(
    kind: str, body: dict[str, Any], field: str
) -> None:
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
