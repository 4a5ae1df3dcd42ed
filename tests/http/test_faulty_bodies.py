"""What a client got wrong in a body is a 400 that says where, and is not sent again."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.harness import Running
from tests.http.faulty_bodies import ANTHROPIC, CHAT, RESPONSES, USER, loaded, refused
from tests.parrot_model import TOOL

# --- the request is wrong ------------------------------------------------------------------


def call(**function: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", **function}}],
    }


RESULT = {"role": "tool", "tool_call_id": "1", "content": "x"}


async def test_arguments_that_are_no_json_are_refused(
    running: Running, subtests: pytest.Subtests
) -> None:
    """In the history, where small models leave them; only some templates mind."""
    history = [USER, call(arguments='{"a": 1}'), RESULT, call(arguments='{"a": '), RESULT]
    for path in (CHAT, f"{CHAT}/input_tokens", "/apply-template"):
        with subtests.test(f"{path!r:.80}"):
            message, param, _ = await refused(
                running, path, {"model": "parrot", "messages": history}
            )
            assert param == "messages[3].tool_calls[0].function.arguments"
            assert param in message
            assert "JSON" in message
    items = [
        USER,
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{"},
        {"type": "function_call_output", "call_id": "1", "output": "x"},
    ]
    for path in (RESPONSES, f"{RESPONSES}/input_tokens"):
        _, param, _ = await refused(running, path, {"model": "parrot", "input": items})
        assert param == "input[1].arguments"
    # Whatever becomes of the messages on their way: they are counted as the client does.
    late = {"role": "system", "content": "S"}
    for model in ("parrot", "parrot:kind"):
        for first in ([late], [late, late], [late, late, USER, late]):
            with subtests.test(f"{first!r:.80}"):
                body = {"model": model, "messages": [*first, *history]}
                where = f"messages[{len(first) + 3}].tool_calls[0].function.arguments"
                for path in (CHAT, f"{CHAT}/input_tokens", "/apply-template"):
                    assert (await refused(running, path, body))[1] == where
                body = {"model": model, "input": [*first, *items]}
                for path in (RESPONSES, f"{RESPONSES}/input_tokens"):
                    _, param, _ = await refused(running, path, body)
                    assert param == f"input[{len(first) + 1}].arguments"
                parts = [{"type": "text", "text": None}, {"type": "text"}]
                body = {"model": model, "messages": [*first, {"role": "user", "content": parts}]}
                where = f"messages[{len(first)}].content[1].text"
                assert (await refused(running, CHAT, body))[1] == where
    # Such a template writes down whatever it is.
    body = {"model": "named", "messages": history}
    assert (await running.json("POST", "/apply-template", json=body))[0] == 200
    assert (await running.json("GET", "/chat/errors"))[1] == {"errors": []}


async def test_tools_and_calls_that_are_none_are_refused(
    running: Running, subtests: pytest.Subtests
) -> None:
    tools: Any
    function = TOOL["function"]
    for tools, where in (
        ("x", "tools"),
        ([None], "tools[0]"),
        ([TOOL, {"type": "function"}], "tools[1].function"),
        ([{"type": "function", "function": 7}], "tools[0].function"),
        ([{"type": "function", "function": {}}], "tools[0].function.name"),
        ([{"type": "web_search"}], "tools[0].type"),
        ([{"function": {"name": 7}}], "tools[0].function.name"),
    ):
        with subtests.test(f"{tools!r:.80}"):
            body = {"model": "parrot", "messages": [USER], "tools": tools}
            message, param, _ = await refused(running, CHAT, body)
            assert param == where
            assert f"`{where}`" in message
    for tools, where in (
        ([{"type": "function"}], "tools[0].name"),
        ([TOOL], "tools[0].name"),
        ([None], "tools[0]"),
    ):
        with subtests.test(f"{tools!r:.80}"):
            _, param, _ = await refused(
                running, RESPONSES, {"model": "parrot", "input": "x", "tools": tools}
            )
            assert param == where
    for tools, where in (([TOOL], "tools[0].name"), ({}, "tools")):
        body = {"model": "parrot", "messages": [USER], "tools": tools, "max_tokens": 9}
        assert f"`{where}`" in (await refused(running, ANTHROPIC, body))[0]
    for calls, where in (
        ("x", "messages[1].tool_calls"),
        ([1], "messages[1].tool_calls[0]"),
        ([{"id": "1", "type": "function"}], "messages[1].tool_calls[0].function"),
        ([{"id": "1", "type": "custom", "custom": {}}], "messages[1].tool_calls[0].type"),
        ([{"function": {"arguments": "{}"}}], "messages[1].tool_calls[0].function.name"),
    ):
        with subtests.test(f"{calls!r:.80}"):
            body = {
                "model": "parrot",
                "messages": [USER, {"role": "assistant", "tool_calls": calls}],
            }
            assert (await refused(running, CHAT, body))[1] == where
    item = {"type": "function_call", "call_id": "1", "arguments": "{}"}
    _, param, _ = await refused(running, RESPONSES, {"model": "parrot", "input": [USER, item]})
    assert param == "input[1].name"
    assert not loaded(running)
    # What can only be meant one way is filled in.
    messages = [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, RESULT]
    body = {"messages": messages, "tools": [{"type": None, "function": function}]}
    assert (await running.json("POST", CHAT, json={"model": "parrot", **body}))[0] == 200


async def test_other_values_that_are_none_are_refused(
    running: Running, subtests: pytest.Subtests
) -> None:
    body: dict[str, Any]
    for path, body, said in (
        (CHAT, {"messages": [USER], "reasoning_format": "x"}, "reasoning format"),
        (CHAT, {"messages": [USER], "json_schema": {}, "grammar": "root ::= []"}, "json_schema"),
        (CHAT, {"messages": [{**USER, "name": 7}]}, "must be string"),
        (
            CHAT,
            {"messages": [USER, {"role": "user", "content": [{"type": "text"}]}]},
            "[1].content",
        ),
        ("/detokenize", {"tokens": [10**8]}, "tokens"),
    ):
        with subtests.test(f"{path!r:.80}"):
            assert said in (await refused(running, path, {"model": "parrot", **body}))[0]
    for path in ("/rerank", "/v1/reranking"):
        for number in (-1, 2**70):
            body = {"model": "rerank", "query": "x", "documents": ["x", "y"], "top_n": number}
            message, param, _ = await refused(running, path, body)
            assert (param, "`top_n`" in message) == ("top_n", True)
    for role in (None, 7):
        for path in (CHAT, f"{CHAT}/input_tokens", ANTHROPIC, "/apply-template"):
            with subtests.test(f"{path!r:.80}"):
                body = {"model": "parrot", "messages": [USER, {"role": role, "content": "x"}]}
                assert "`messages[1].role`" in (await refused(running, path, body))[0]


# --- nulls ---------------------------------------------------------------------------------

CALL_ITEM = {
    "type": "function_call",
    "id": "fc",
    "call_id": "1",
    "name": "f",
    "arguments": "{}",
    "status": "completed",
}


BODIES: dict[str, tuple[dict[str, Any], set[str]]] = {
    CHAT: (
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "S"}], "name": "n"},
                {
                    "role": "assistant",
                    "content": "c",
                    "name": "n",
                    "reasoning_content": "r",
                    "refusal": "r",
                    "annotations": [],
                    "tool_calls": [
                        {
                            "id": "1",
                            "type": "function",
                            "index": 0,
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "x", "name": "f"},
                {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "n"},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "f",
                        "description": "d",
                        "strict": False,
                        "parameters": {"type": "object", "properties": {}},
                    },
                }
            ],
            "stream_options": {"include_usage": True},
        },
        {
            "messages",
            "role",
            "tools.0.function",
            "tool_calls.0.function",
            "function.name",
            "content.0.type",
        },
    ),
    RESPONSES: (
        {
            "instructions": "I",
            "input": [
                {
                    "type": "message",
                    "id": "u",
                    "role": "user",
                    "status": "completed",
                    "content": "c",
                },
                {
                    "type": "reasoning",
                    "id": "r",
                    "status": "completed",
                    "summary": [],
                    "encrypted_content": "e",
                    "content": [{"type": "reasoning_text", "text": "t"}],
                },
                {
                    "type": "message",
                    "id": "m",
                    "role": "assistant",
                    "status": "completed",
                    "content": [
                        {"type": "output_text", "text": "t", "annotations": [], "logprobs": []}
                    ],
                },
                CALL_ITEM,
                {"type": "function_call_output", "id": "o", "call_id": "1", "output": "x"},
            ],
            "tools": [
                {
                    "type": "function",
                    "name": "f",
                    "description": "d",
                    "strict": False,
                    "parameters": {"type": "object", "properties": {}},
                }
            ],
            "text": {"format": {"type": "text"}},
            "reasoning": {"effort": "low", "summary": "auto"},
        },
        # What Responses wants of each item.
        {
            "input",
            "role",
            "call_id",
            "name",
            "output",
            "summary",
            "input.1.type",
            "input.2.type",
            "input.3.type",
            "input.4.type",
            "content.0.type",
            "input.0.content",
            "input.2.content",
            "parameters",
        },
    ),
    ANTHROPIC: (
        {
            "max_tokens": 9,
            "system": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hi", "citations": []}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t", "signature": "s"},
                        {"type": "tool_use", "id": "1", "name": "f", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "1",
                            "is_error": False,
                            "content": [{"type": "text", "text": "x"}],
                        }
                    ],
                },
            ],
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
            "metadata": {"user_id": "u"},
        },
        {"messages", "role", "tools.0.name", "max_tokens", "content.0.type"},
    ),
}


def fields(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every field of every object in ``value``, but not below what is the client's own."""
    if isinstance(value, list):
        return [path for n, item in enumerate(value) for path in fields(item, (*at, n))]
    if not isinstance(value, dict):
        return []
    found = []
    for key, inner in value.items():
        found.append((*at, key))
        if key not in ("parameters", "input_schema") and (key != "input" or not at):
            found += fields(inner, (*at, key))
    return found


@pytest.mark.parametrize("path", sorted(BODIES))
async def test_null_is_as_if_the_field_were_not_there(running: Running, path: str) -> None:
    """Each field by itself, with a real llama-server: as if it weren't there, and never a 5xx."""
    whole, required = BODIES[path]
    body = {"model": "parrot", "max_tokens": 2, "max_output_tokens": 2, **whole}
    assert (await running.json("POST", path, json=body))[0] == 200
    for field in fields(whole):
        with_null = copy.deepcopy(body)
        holder: Any = with_null
        for step in field[:-1]:
            holder = holder[step]
        holder[field[-1]] = None
        status, answer = await running.json("POST", path, json=with_null)
        name = ".".join(map(str, field))
        needed = any(f".{name}".endswith(f".{end}") for end in required)
        assert status == 200 or (needed and status == 400), (name, answer)
