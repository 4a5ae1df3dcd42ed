"""What clients send that llama-server would refuse, and OpenAI doesn't."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.proxy.lenience import drop_nulls


def test_nulls_of_the_body_are_dropped() -> None:
    inner = {"content": None, "logit_bias": [None]}
    body: dict[str, Any] = {"a": None, "messages": [inner], "b": 0, "c": "", "d": None}
    assert drop_nulls(body)
    assert body == {"messages": [{"content": None, "logit_bias": [None]}], "b": 0, "c": ""}
    assert not drop_nulls(body)


def test_null_descriptions_are_dropped() -> None:
    schema = {"type": "object", "properties": {"description": None}, "description": None}
    before = copy.deepcopy(schema)
    function = {"name": "f", "description": None, "parameters": schema}
    chat = {"type": "function", "function": function}
    responses = {"type": "function", "name": "f", "description": None}
    body: dict[str, Any] = {"tools": [chat, responses, {"name": "g", "description": "G."}]}
    assert drop_nulls(body)
    assert body["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": before}},
        {"type": "function", "name": "f"},
        {"name": "g", "description": "G."},
    ]
    assert not drop_nulls(body)


@pytest.mark.parametrize(
    "tools", [7, "x", {}, [], [None, 7, [], {}], [{"function": None}, {"function": "f"}]]
)
def test_what_is_no_list_of_tools_is_left_to_llama_server(tools: Any) -> None:
    body = {"tools": copy.deepcopy(tools)}
    assert not drop_nulls(body)
    assert body == {"tools": tools}
