"""What clients send that llama-server would refuse, and OpenAI doesn't."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.lenience import ANTHROPIC, CHAT, OTHER, RESPONSES, FieldPlace, drop_nulls


def test_nulls_of_the_body_are_dropped() -> None:
    inner = {"content": None, "logit_bias": [None]}
    body: dict[str, Any] = {"a": None, "documents": [inner], "b": 0, "c": "", "d": None}
    assert drop_nulls(body)
    assert body == {"documents": [{"content": None, "logit_bias": [None]}], "b": 0, "c": ""}
    assert not drop_nulls(body)


#: What is the client's own: a null in it has a meaning.
SCHEMA = {"type": "object", "properties": {"x": {"default": None, "enum": [None]}}, "title": None}

FULL: dict[str, tuple[FieldPlace, dict[str, Any]]] = {
    "chat": (
        CHAT,
        {
            "messages": [
                {"role": "system", "content": "S", "name": "n"},
                {
                    "role": "assistant",
                    "content": None,  # legal, and stays
                    "reasoning_content": "r",
                    "tool_calls": [
                        {
                            "id": "1",
                            "type": "function",
                            "index": 0,
                            "function": {"name": "f", "arguments": '{"x": null}'},
                        }
                    ],
                    "function_call": {"name": "f", "arguments": "{}"},
                    "refusal": "r",
                    "audio": {"id": "a"},
                },
                {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "t"}]},
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "u", "detail": "low"}}],
                },
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "f",
                        "description": "d",
                        "strict": True,
                        "parameters": SCHEMA,
                    },
                }
            ],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "strict": True, "schema": SCHEMA},
            },
            "stream_options": {"include_usage": True},
            "logit_bias": {"1": None},
            "metadata": {"a": None},
        },
    ),
    "responses": (
        RESPONSES,
        {
            "instructions": "I",
            "input": [
                {"type": "message", "role": "user", "status": "completed", "content": "c"},
                {
                    "id": "m",
                    "type": "message",
                    "role": "assistant",
                    "phase": "p",
                    "content": [
                        {"type": "output_text", "text": "t", "annotations": [], "logprobs": []}
                    ],
                },
                {
                    "type": "reasoning",
                    "id": "r",
                    "summary": [{"type": "summary_text", "text": "t"}],
                    "content": [{"type": "reasoning_text", "text": "t"}],
                    "encrypted_content": "e",
                },
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {
                    "type": "function_call_output",
                    "call_id": "1",
                    "output": [{"type": "input_text", "text": "t"}],
                },
            ],
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": SCHEMA}],
            "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
            "reasoning": {"effort": "low", "summary": "auto"},
        },
    ),
    "anthropic": (
        ANTHROPIC,
        {
            "system": [{"type": "text", "text": "t", "cache_control": {"type": "e", "ttl": "5m"}}],
            "messages": [
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t", "signature": "s"},
                        {"type": "text", "text": "t", "citations": []},
                        {"type": "tool_use", "id": "1", "name": "f", "input": {"x": None}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "1",
                            "is_error": False,
                            "content": [{"type": "text", "text": "t", "citations": []}],
                        },
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "m", "data": "d"},
                        },
                    ],
                },
            ],
            "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}],
            "tool_choice": {"type": "tool", "name": "f"},
            "thinking": {"type": "enabled", "budget_tokens": 1},
            "metadata": {"user_id": "u"},
        },
    ),
    "other": (OTHER, {"input": [{"text": None}], "documents": [None], "encoding_format": "f"}),
}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field of every object in ``value``, as a path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*at, key)
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*at, index))


def is_own(name: str, path: tuple[Any, ...]) -> bool:
    """Whether it is below a field whose value is the client's own."""
    own = {"schema", "parameters", "input_schema", "logit_bias", "documents"}
    own |= {"chat": {"metadata"}, "anthropic": {"input"}, "other": {"input"}}.get(name, set())
    return bool(own.intersection(path[:-1]))


def holder_of(body: Any, path: tuple[Any, ...]) -> Any:
    for step in path[:-1]:
        body = body[step]
    return body


@st.composite
def some_nulls(draw: st.DrawFn) -> tuple[str, list[tuple[Any, ...]]]:
    """An API, and fields of its body that shall be null, none within another."""
    name = draw(st.sampled_from(sorted(FULL)))
    every = [path for path in places(FULL[name][1]) if not is_own(name, path)]
    chosen: list[tuple[Any, ...]] = draw(st.lists(st.sampled_from(every), max_size=6, unique=True))
    return name, [p for p in chosen if not any(p != q and p[: len(q)] == q for q in chosen)]


@given(some_nulls())
def test_a_null_is_as_good_as_nothing(chosen: tuple[str, list[tuple[Any, ...]]]) -> None:
    name, paths = chosen
    place, full = FULL[name]
    body, expected = copy.deepcopy(full), copy.deepcopy(full)
    for path in paths:
        *at, field = path
        holder_of(body, path)[field] = None
        holder = holder_of(expected, path)
        kind = None if (*at, "type") in paths else str(holder.get("type"))
        if field == "content" and at[:1] == ["messages"] and len(at) == 2:
            holder[field] = None  # an answer that only calls tools has none
        elif field == "text" and at and kind is not None and kind.endswith("text"):
            holder[field] = ""  # a part without a text is one with nothing in it
        else:
            del holder[field]
    changed = body != expected
    assert drop_nulls(body, place) == changed
    assert body == expected
    assert not drop_nulls(body, place)


def test_what_is_the_clients_own_stays(subtests: pytest.Subtests) -> None:
    for name, (place, full) in FULL.items():
        with subtests.test(f"{name!r:.80}"):
            body = copy.deepcopy(full)
            assert not drop_nulls(body, place), name
            assert body == full


@pytest.mark.parametrize("place", [CHAT, RESPONSES, ANTHROPIC, OTHER])
@pytest.mark.parametrize(
    "value", [7, "x", {}, [], [None, 7, [], {}], [{"function": None}, {"function": "f"}], [[None]]]
)
@pytest.mark.parametrize(
    "field", ["messages", "input", "tools", "system", "text", "stream_options"]
)
def test_what_has_another_shape_is_left_to_others(
    place: FieldPlace, value: Any, field: str
) -> None:
    body = {field: copy.deepcopy(value)}
    drop_nulls(body, place)
    assert type(body[field]) is type(value)
    if isinstance(value, list):
        assert len(body[field]) == len(value)
