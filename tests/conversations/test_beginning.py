"""The second link by which the servers of a model are told: that of a conversation's beginning."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.conversations.beginning import links_in, links_of
from gateway.conversations.chain import Chains

SYSTEM = {"role": "system", "content": "Be nice."}
DEVELOPER = {"role": "developer", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "I see."}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def links(*messages: dict[str, str], **fields: Any) -> tuple[bytes, ...]:
    body = {"messages": list(messages), **fields}
    found = links_of(body, Chains(), "chat", "key")
    assert links_in(json.dumps(body).encode(), "chat", "key")[0] == found
    return found


@pytest.mark.parametrize("before", [(), (SYSTEM,), (SYSTEM, DEVELOPER)])
def test_it_stays_turn_by_turn_and_is_another_one_in_another_conversation(
    before: tuple[dict[str, str], ...],
) -> None:
    first = links(*before, user("a"))
    second = links(*before, user("a"), ANSWER, user("b"))
    assert first == second[:2]
    assert len(second) == 4
    assert links(*before, user("c"))[1] != first[1]


def test_tools_are_a_part_of_it() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    first = links(user("a"), tools=tools)
    assert first == links(user("a"), ANSWER, user("b"), tools=tools)[:2]
    assert links(user("c"), tools=tools)[1] != first[1] != links(user("a"))[1]


def test_what_has_only_instructions_begins_with_the_last_of_them() -> None:
    assert links(SYSTEM) != links(SYSTEM, DEVELOPER)


def test_what_is_no_conversation_has_none() -> None:
    assert links_of({"messages": 1}, Chains(), "chat", "key") == ()
    assert links_in(b"{", "chat", "key") == ((), None)
