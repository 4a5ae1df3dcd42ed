"""Where each message format keeps its system prompt."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.proxy.personality import (
    ANTHROPIC,
    CHAT,
    COMPLETION,
    DEVELOPER,
    MANY_SYSTEMS,
    NONE,
    RESPONSES,
    WITH_CALLS,
    WITH_MEDIA,
    MessageFormat,
)

USER = {"role": "user", "content": "hi"}
SYSTEM = [{"role": "system", "content": "S"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def text(words: str, kind: str = "text", **more: Any) -> dict[str, Any]:
    return {"type": kind, "text": words, **more}


def applied(format_: MessageFormat, body: dict[str, Any], prompt: str = "P") -> dict[str, Any]:
    body = copy.deepcopy(body)
    format_.check(body)
    assert format_.apply is not None
    format_.apply(body, prompt)
    return body


@pytest.mark.parametrize(
    ("messages", "system"),
    [
        ([], "P"),
        (SYSTEM, "P\n\nS"),
        ([{"role": "system"}], "P"),
        ([{"role": "system", "content": None}, {"role": "developer", "content": ""}], "P"),
        ([{"role": "system", "content": [text("a"), text("b")]}], "P\n\na\n\nb"),
        (
            [{"role": "developer", "content": "D"}, {"role": "system", "content": "S"}],
            "P\n\nD\n\nS",
        ),
        ([{"role": "system", "content": [text("a"), IMAGE]}], [text("P"), text("a"), IMAGE]),
        ([{"role": "system", "content": 7}], [text("P"), text(7)]),  # type: ignore[arg-type]
    ],
)
def test_a_personality_comes_first_in_a_chat(messages: list[Any], system: Any) -> None:
    assistant = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    expected = [{"role": "system", "content": system}, USER, assistant]
    body = {"messages": [*messages, USER, assistant], "n": 1}
    assert applied(CHAT, body) == {"messages": expected, "n": 1}
    # What comes late stays late: the beginning of the prompt is the same in every turn.
    late: dict[str, Any] = {"messages": [USER, *messages, assistant], "n": 1}
    first = {"role": "system", "content": "P"}
    assert applied(CHAT, late) == {"messages": [first, *late["messages"]], "n": 1}


@pytest.mark.parametrize(
    ("format_", "body", "expected"),
    [
        (
            CHAT,
            {"messages": [{"role": "developer", "content": "A", "name": "a"}, *SYSTEM, USER]},
            {"messages": [{"role": "developer", "content": "A\n\nS", "name": "a"}, USER]},
        ),
        (
            RESPONSES,
            {"input": [*SYSTEM, {"role": "developer", "content": [text("D", "input_text")]}, USER]},
            {"instructions": "S\n\nD", "input": [USER]},
        ),
        (
            RESPONSES,
            {"instructions": "I", "input": [*SYSTEM, USER, *SYSTEM]},
            {"instructions": "I\n\nS", "input": [USER, *SYSTEM]},
        ),
        (
            ANTHROPIC,
            {"system": [text("A")], "messages": [*SYSTEM, USER, *SYSTEM]},
            {"system": [text("A"), text("\n\nS")], "messages": [USER, *SYSTEM]},
        ),
        (
            ANTHROPIC,
            {"messages": [*SYSTEM, *SYSTEM, USER]},
            {"system": "S\n\nS", "messages": [USER]},
        ),
    ],
)
def test_several_at_the_beginning_become_one(
    format_: MessageFormat, body: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert format_.check(body) & MANY_SYSTEMS
    assert format_.apply is not None
    format_.apply(body, None)
    assert body == expected


BILLING = "x-anthropic-billing-header: cc_version=2.1; cc_entrypoint=cli; cch=1a2b3;"


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (BILLING, [text("P\n\n"), text(BILLING)]),
        (f"{BILLING}\n\nYou are C.", [text("P\n\nYou are C.\n\n"), text(BILLING)]),
        (
            [text(BILLING), text("You are C.", cache_control={"type": "ephemeral"}), text("More.")],
            [
                text("P\n\n"),
                text("You are C.", cache_control={"type": "ephemeral"}),
                text("More."),
                text("\n\n"),
                text(BILLING),
            ],
        ),
        ([text(f"{BILLING}\nYou are C.")], [text("P\n\n"), text(f"{BILLING}\nYou are C.")]),
    ],
)
def test_what_varies_comes_behind_what_is_stable(system: Any, expected: Any) -> None:
    assert applied(ANTHROPIC, {"messages": [USER], "system": system})["system"] == expected


def test_many_systems_take_as_long_as_they_are_many() -> None:
    many = 20_000
    body = {
        "messages": [{"role": "system", "content": "S"}] * many + [USER],
        "system": [text(BILLING), text("You are C.")] * many,
    }
    began = time.process_time()
    done = applied(ANTHROPIC, body)
    assert time.process_time() - began < 5  # a tenth of a second; their square took a minute
    assert done["messages"] == [USER]
    assert len(done["system"]) == 2 * many + 3  # the personality, the messages and a blank line
    assert [block["text"] for block in done["system"][-2:]] == [BILLING] * 2


def test_what_a_body_has_is_found(subtests: pytest.Subtests) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": []}
    picture = {"role": "user", "content": [IMAGE]}
    developer = {"role": "developer", "content": "D"}
    for format_, body, found in (
        (CHAT, [*SYSTEM, USER], 0),
        (CHAT, [developer, USER], DEVELOPER),
        (CHAT, [USER, *SYSTEM], MANY_SYSTEMS),
        (CHAT, [*SYSTEM, developer], MANY_SYSTEMS | DEVELOPER),
        (CHAT, [USER, call], WITH_CALLS),
        (ANTHROPIC, [USER, picture], WITH_MEDIA),
        (ANTHROPIC, [*SYSTEM, USER], 0),
    ):
        with subtests.test(f"{format_!r:.80}"):
            assert format_.check({"messages": body}) == found
    assert ANTHROPIC.check({"system": "S", "messages": [*SYSTEM, USER]}) == MANY_SYSTEMS
    for input_, found in (
        ("hi", 0),
        ([USER], 0),
        ([*SYSTEM, USER], MANY_SYSTEMS),
        ([{"type": "reasoning"}, USER], WITH_CALLS),
        ([{"role": "user", "content": [{"type": "input_image"}]}], WITH_MEDIA),
    ):
        with subtests.test(f"{input_!r:.80}"):
            assert RESPONSES.check({"instructions": "I", "input": input_}) == found
    assert RESPONSES.check({"input": [*SYSTEM, USER]}) == 0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"input": "hi"}, {"input": "hi", "instructions": "P"}),
        ({"input": "hi", "instructions": None}, {"input": "hi", "instructions": "P"}),
        ({"input": "hi", "instructions": "I"}, {"input": "hi", "instructions": "P\n\nI"}),
        ({"input": [USER]}, {"input": [USER], "instructions": "P"}),
        (
            {
                "input": [
                    {"role": "developer", "content": "D"},
                    {"type": "message", "role": "system", "content": [text("S", "input_text")]},
                    USER,
                    {"role": "developer", "content": "L"},
                    {"type": "function_call_output", "call_id": "1", "output": "O"},
                ],
                "instructions": "I",
            },
            {
                "input": [
                    USER,
                    {"role": "developer", "content": "L"},
                    {"type": "function_call_output", "call_id": "1", "output": "O"},
                ],
                "instructions": "P\n\nI\n\nD\n\nS",
            },
        ),
        (
            {
                "input": [{"role": "system", "content": [{"type": "input_image"}]}, USER],
                "instructions": "I",
            },
            {
                "input": [
                    {
                        "role": "system",
                        "content": [
                            text("P", "input_text"),
                            text("I", "input_text"),
                            {"type": "input_image"},
                        ],
                    },
                    USER,
                ]
            },
        ),
    ],
)
def test_a_personality_comes_first_in_responses(
    body: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert applied(RESPONSES, body) == expected


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (None, "P"),
        ("", "P"),
        ("S", "P\n\nS"),
        ([], [text("P")]),
        (
            [text("S", cache_control={"type": "ephemeral"})],
            [text("P\n\n"), text("S", cache_control={"type": "ephemeral"})],
        ),
    ],
)
def test_a_personality_comes_first_in_anthropics_system(system: Any, expected: Any) -> None:
    assert applied(ANTHROPIC, {"messages": [USER], "system": system})["system"] == expected
    with_message = [{"role": "system", "content": "M"}, USER]
    body = applied(ANTHROPIC, {"messages": with_message, "system": system})
    assert body["messages"] == [USER]
    if isinstance(expected, str):
        assert body["system"] == f"{expected}\n\nM"
    else:
        assert body["system"] == [*expected, text("\n\nM")]


@pytest.mark.parametrize("role", [["system"], {}, 7, None])
@pytest.mark.parametrize("format_", [CHAT, RESPONSES, ANTHROPIC])
def test_a_role_that_is_none_is_left_to_llama_server(format_: MessageFormat, role: Any) -> None:
    strange = {"role": role, "content": "x"}
    field = "input" if format_ is RESPONSES else "messages"
    assert strange in applied(format_, {field: [strange]})[field]


def test_parts_that_are_none_are_left_to_llama_server() -> None:
    item = {"role": "system", "content": [1, None, text("a", "input_text")]}
    expected = [text("P", "input_text"), 1, None, text("a", "input_text")]
    assert applied(RESPONSES, {"input": [item]})["input"] == [
        {"role": "system", "content": expected}
    ]


def test_personality_becomes_the_system_of_anthropic() -> None:
    picture = {"role": "system", "content": [{"type": "image", "source": {"data": "AA=="}}]}
    body = {"messages": [USER, picture]}
    assert applied(ANTHROPIC, body) == {"messages": [USER, picture], "system": "P"}
    with pytest.raises(BadRequest, match="system"):
        applied(ANTHROPIC, {"messages": [USER], "system": 7})


def test_an_empty_personality_silences_the_template_s_own() -> None:
    assert applied(CHAT, {"messages": [USER]}, "")["messages"][0]["content"] == ""
    assert applied(RESPONSES, {"input": "hi"}, "")["instructions"] == ""
    assert applied(ANTHROPIC, {"messages": [USER]}, "")["system"] == ""


@pytest.mark.parametrize(
    ("format_", "body", "words"),
    [
        (RESPONSES, {}, "`input` is missing"),
        (RESPONSES, {"input": None}, "`input` is missing"),
        (RESPONSES, {"input": 7}, "a number"),
        (RESPONSES, {"input": {"role": "user"}}, "an object"),
        (RESPONSES, {"input": ["hi"]}, r"input\[0\]"),
        (ANTHROPIC, {"system": "S"}, "`messages` is missing"),
        (ANTHROPIC, {"messages": [None]}, "null"),
    ],
)
def test_body_without_a_conversation_is_refused(
    format_: MessageFormat, body: Any, words: str
) -> None:
    with pytest.raises(BadRequest, match=words):
        format_.check(body)


def test_completions_and_embeddings_have_no_place_for_a_personality() -> None:
    assert COMPLETION.apply is None
    assert NONE.apply is None
