"""System messages that come late, where the chat template wants them at the beginning only."""

from __future__ import annotations

import copy
import time
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.personality import ANTHROPIC, CHAT, RESPONSES, MessageFormat, leading
from gateway.proxy.system_messages import as_system, into_users_words, systems

Message = dict[str, Any]


def said(role: str, content: Any) -> Message:
    return {"role": role, "content": content}


def mended(format_: MessageFormat, messages: list[Message]) -> list[Message]:
    field = "input" if format_ is RESPONSES else "messages"
    body = {field: copy.deepcopy(messages)}
    into_users_words(format_, body)
    result: list[Message] = body[field]
    return result


S, U, A, L = said("system", "S"), said("user", "U"), said("assistant", "A"), said("system", "L")
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}, {"id": "2"}]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "R"}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([S, U, A], [S, U, A]),
        ([S, S, U, A], [S, S, U, A]),  # those at the beginning are not this one's business
        ([S, U, L], [S, said("user", "U\n\nL")]),
        ([S, U, L, A], [S, said("user", "U\n\nL"), A]),
        ([S, U, A, L, U], [S, U, A, said("user", "L\n\nU")]),
        ([S, U, A, L, L, U], [S, U, A, said("user", "L\n\nL\n\nU")]),
        ([U, L, U, A], [said("user", "U\n\nL\n\nU"), A]),
        ([U, U, A], [U, U, A]),  # nobody asked for that
        ([U, A, L], [U, A, said("user", "L")]),
        ([U, A, L, A], [U, A, said("user", "L"), A]),
        ([U, CALL, RESULT, L, A], [U, CALL, RESULT, said("user", "L"), A]),
        ([U, CALL, L, RESULT, RESULT, A], [U, CALL, RESULT, RESULT, said("user", "L"), A]),
        ([U, CALL, RESULT, L, RESULT, U], [U, CALL, RESULT, RESULT, said("user", "L\n\nU")]),
        ([U, CALL, L, RESULT], [U, CALL, RESULT, said("user", "L")]),
        ([U, said("system", ""), said("developer", None), A], [U, A]),
        ([said("user", None), L], [said("user", "L")]),
    ],
)
def test_late_system_messages_of_a_chat_are_mended(
    messages: list[Message], expected: list[Message]
) -> None:
    assert mended(CHAT, messages) == expected


def text(words: str, kind: str = "text") -> Message:
    return {"type": kind, "text": words}


def test_parts_stay_parts() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages = [said("user", [picture, text("U")]), L, A, said("system", [text("M")]), U]
    assert mended(CHAT, messages) == [
        said("user", [picture, text("U"), text("\n\n"), text("L")]),
        A,
        said("user", [text("M"), text("\n\n"), text("U")]),
    ]


@pytest.mark.parametrize("format_", [CHAT, RESPONSES, ANTHROPIC], ids=lambda format_: format_.name)
def test_it_takes_as_long_as_the_conversation_is(format_: MessageFormat) -> None:
    """Not its square: all of it may be said to one message, in a few hundred kilobytes."""
    many = 20_000
    part = {"type": "input_text" if format_ is RESPONSES else "text", "text": "x"}
    waiting = {"type": "function_call_output"} if format_ is RESPONSES else {}
    tool = {"role": "tool", "content": [{"type": "tool_result"}], **waiting}
    began = time.process_time()
    told = mended(format_, [said("user", [part]), *[L] * many])
    assert len(told[0]["content"]) == 2 * many + 1  # and a blank line before each
    assert mended(format_, [U, *[L] * many]) == [said("user", "\n\n".join(["U", *["L"] * many]))]
    assert mended(format_, [tool, *[L] * many, tool])[2]["content"] == "\n\n".join(["L"] * many)
    mended(format_, [said("user", [part]), *[L, said("user", [part])] * many])
    assert time.process_time() - began < 10  # it takes half a second; its square took minutes


def test_late_system_messages_of_responses_are_mended() -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "1", "output": "R"}
    thought = {"type": "reasoning", "summary": []}
    late = {"type": "message", "role": "developer", "content": [text("L", "input_text")]}
    assert mended(RESPONSES, [late, U, late, thought, call, late, call, result, late, result]) == [
        late,
        said(
            "user", [text("U", "input_text"), text("\n\n", "input_text"), text("L", "input_text")]
        ),
        thought,
        call,
        call,
        result,
        result,
        said(
            "user", [text("L", "input_text"), text("\n\n", "input_text"), text("L", "input_text")]
        ),
    ]


def test_late_system_messages_of_anthropic_are_mended() -> None:
    use = said("assistant", [{"type": "tool_use", "id": "1", "name": "f", "input": {}}])
    result = {"type": "tool_result", "tool_use_id": "1", "content": "R"}
    answered = said("user", [result, text("U")])
    assert mended(ANTHROPIC, [U, use, L, answered, L, A]) == [
        U,
        use,
        said("user", [result, *map(text, ("U", "\n\n", "L", "\n\n", "L"))]),
        A,
    ]
    assert mended(ANTHROPIC, [U, use, L, said("user", [result])])[2] == said(
        "user", [result, text("L")]
    )


def test_developer_counts_as_system_where_the_api_has_one(subtests: pytest.Subtests) -> None:
    developer = said("developer", "D")
    for format_, body, first, late in (
        (CHAT, {"messages": [U]}, (), ()),
        (CHAT, {"messages": [S, developer, U, S, A, S]}, ("system", "developer"), ("system",)),
        (RESPONSES, {"instructions": "I", "input": "hi"}, ("system",), ()),
        (
            RESPONSES,
            {"instructions": "I", "input": [developer, U, developer, S]},
            ("system", "developer"),
            ("developer", "system"),
        ),
        (ANTHROPIC, {"system": [text("S")], "messages": [U, S]}, ("system",), ("system",)),
        (ANTHROPIC, {"system": "", "messages": [S, U]}, ("system",), ()),
    ):
        with subtests.test(f"{format_!r:.80}"):
            assert systems(format_, body) == (first, late)
    body = {"messages": [developer, U, developer]}
    as_system(CHAT, body)
    assert body["messages"] == [said("system", "D"), U, said("system", "D")]


# --- the cache -----------------------------------------------------------------------------

_WORDS = st.sampled_from(["", "a", "b", "c", None, [], [text("x")], [text("y"), text("z")]])
_TURNS = st.one_of(
    st.tuples(st.just("system"), _WORDS).map(lambda turn: [said(*turn)]),
    st.tuples(st.just("developer"), _WORDS).map(lambda turn: [said(*turn)]),
    st.tuples(st.just("user"), _WORDS).map(lambda turn: [said(*turn)]),
    st.tuples(st.just("assistant"), _WORDS).map(lambda turn: [said(*turn)]),
    st.permutations([RESULT, L, RESULT]).map(lambda rest: [CALL, *rest]),
)


def rendered(messages: list[Message]) -> str:
    """As a template writes it down, but for the end of the last message."""
    return "".join(f"</>\n<{m['role']}>{words(m.get('content'))}" for m in messages)


def words(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return content or ""


@given(st.lists(_TURNS, max_size=8), st.lists(_TURNS, max_size=4))
def test_what_was_said_first_is_found_in_the_cache(
    first: list[list[Message]], more: list[list[Message]]
) -> None:
    """The prompt of a turn is the beginning of the prompt of every later one."""
    beginning = [said("system", "S"), said("user", "U"), *chain(*first)]
    everything = [*beginning, *chain(*more)]
    before, after = mended(CHAT, beginning), mended(CHAT, everything)
    assert rendered(after).startswith(rendered(before))
    assert before[: len(before) - 1] == after[: len(before) - 1]
    # Nothing is lost, nothing is said twice, and one system message is left.
    assert leading(after) == 1
    assert sorted(said_in(after)) == sorted(said_in(everything))
    assert not any(message["role"] in ("system", "developer") for message in after[1:])


def said_in(messages: list[Message]) -> str:
    return "".join(words(message.get("content")) for message in messages).replace("\n", "")


@given(st.lists(_TURNS, max_size=8))
def test_what_has_no_late_ones_stays_as_it_is(turns: list[list[Message]]) -> None:
    messages = [m for turn in turns for m in turn if m["role"] not in ("system", "developer")]
    assert mended(CHAT, messages) == messages
