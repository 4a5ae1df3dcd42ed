"""What conversations with tools begin with, and whose that is."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.conversations.chain import Wish, wish_in
from gateway.conversations.opening import Written, functions_of
from gateway.conversations.repeated import CONVERSATIONS, Repeated, Standing
from gateway.proxy.body import serialise

TEXT = "You are a pirate."
FUNCTION = {"name": "sail", "description": "Sail.", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": FUNCTION}]
OF_OPERATOR = Written(TEXT, functions_of(TOOLS, "chat"))
OF_CLIENT = Written(TEXT)


def chat(*, system: str | None = TEXT, question: str = "a", **more: Any) -> dict[str, Any]:
    before = [] if system is None else [{"role": "system", "content": system}]
    asked = [*before, {"role": "user", "content": question}]
    return {"messages": asked, "tools": TOOLS, **more}


def wish(
    body: dict[str, Any], written: Written = OF_CLIENT, format: str = "chat", owner: str = "k"
) -> Wish:
    return wish_in(serialise(body), format, owner, written)[0]


def shared_with_others(body: dict[str, Any], written: Written, format: str = "chat") -> int:
    """How many links two keys have in common that stand for anything."""
    one, other = (wish(body, written, format, owner).chain for owner in "kl")
    common = one.common(other.links)
    return common if one.size(common) else 0


DIALECTS: list[tuple[str, dict[str, Any]]] = [
    ("chat", chat()),
    ("chat", chat(tool_choice="auto", parallel_tool_calls=False)),
    (
        "anthropic",
        {
            "system": [{"type": "text", "text": TEXT}],
            "messages": [{"role": "user", "content": "a"}],
            "tools": [{"name": "sail", "description": "Sail.", "input_schema": {"type": "object"}}],
        },
    ),
    (
        "responses",
        {"instructions": TEXT, "input": "a", "tools": [{"type": "function", **FUNCTION}]},
    ),
]


@pytest.mark.parametrize(("format", "body"), DIALECTS)
def test_tools_that_an_operator_wrote_are_every_keys(format: str, body: dict[str, Any]) -> None:
    assert shared_with_others(body, OF_OPERATOR, format) == 2
    opening = wish(body, OF_OPERATOR, format).opening
    assert opening is not None
    assert opening.written
    asked = opening.prefix.chat("Why?")
    assert asked["messages"] == chat(question="Why?")["messages"]
    assert asked["tools"] == TOOLS


@pytest.mark.parametrize(("format", "body"), DIALECTS)
def test_tools_of_a_client_are_its_keys_alone(format: str, body: dict[str, Any]) -> None:
    assert shared_with_others(body, OF_CLIENT, format) == 0
    opening = wish(body, OF_CLIENT, format).opening
    assert opening is not None
    assert (opening.written, opening.common) == (False, True)


def test_every_dialect_has_the_same_opening_for_the_same_tools() -> None:
    plain = [(format, body) for format, body in DIALECTS if "tool_choice" not in body]
    found = {made.link for f, b in plain if (made := wish(b, format=f).opening) is not None}
    assert len(plain) == 3
    assert len(found) == 1


@pytest.mark.parametrize("written", [OF_CLIENT, OF_OPERATOR])
@pytest.mark.parametrize("system", [f"{TEXT}\n\nAnd mine.", "Mine.", None])
def test_text_of_a_client_is_never_every_keys(written: Written, system: str | None) -> None:
    body = chat(system=system)
    assert shared_with_others(body, written) == 0
    one, other = (wish(body, written, owner=owner) for owner in "kl")
    assert not set(one.chain.links) & set(other.chain.links)
    assert one.opening is not None
    assert not one.opening.common


def test_tools_without_a_text_may_become_every_keys() -> None:
    opening = wish(chat(system=None), Written(None)).opening
    assert opening is not None
    assert opening.common


def test_conversations_with_the_same_tools_begin_with_the_same_links() -> None:
    chains = [wish(chat(question=question)).chain for question in ("a", "b")]
    assert chains[0].common(chains[1].links) == 3  # also that of the system message
    other = wish(chat(question="a", tools=[*TOOLS, *TOOLS])).chain
    assert chains[0].size(chains[0].common(other.links)) == 0


def test_tools_begin_another_prompt_than_the_text_alone() -> None:
    with_tools, without = wish(chat()).chain, wish({**chat(), "tools": []}).chain
    assert with_tools.common(without.links) == 0
    body = chat()
    del body["tools"]
    assert with_tools.common(wish(body).chain.links) == 0


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function"}]},
        {"tools": "all"},
        {"tool_choice": {"type": "function", "function": {"name": "sail"}}},
        {"chat_template_kwargs": {"name": "secret"}},
        {"messages": [{"role": "developer", "content": TEXT}]},
        {"messages": [{"role": "system", "content": [{"type": "text", "text": TEXT}]}]},
        {"cache_prompt": False},
    ],
)
def test_what_is_unusual_is_no_opening(more: dict[str, Any]) -> None:
    made = wish(chat(**more), OF_OPERATOR)
    assert (made.opening, made.prefix, made.chain.shared) == (None, None, 0)


def test_sizes_never_fall_whatever_has_the_text() -> None:
    for format, body in DIALECTS:
        for written in (OF_CLIENT, OF_OPERATOR):
            sizes = wish(body, written, format).chain.sizes
            assert [*sizes] == sorted(sizes)
            assert sizes[1] == len(TEXT) + len(orjson.dumps([FUNCTION]))


# --- what comes again and again ------------------------------------------------------------


def seen(repeated: Repeated, owner: str, *firsts: str, common: bool = True) -> Standing:
    for first in firsts:
        standing = repeated.saw(b"tools", owner, first.encode(), common=common)
    return standing


def test_opening_counts_for_a_key_from_its_second_conversation_on() -> None:
    repeated = Repeated()
    assert seen(repeated, "k", "a", "a", "a") is Standing.SELDOM, "one conversation goes on"
    assert CONVERSATIONS == 2
    assert seen(repeated, "k", "b") is Standing.OWN
    assert seen(repeated, "k", "a") is Standing.OWN


def test_conversations_of_one_key_tell_nothing_to_another_one() -> None:
    alone, after = Repeated(), Repeated()
    seen(after, "victim", *"abcdef")
    asked = [[seen(one, "guesser", first) for first in "ab"] for one in (alone, after)]
    assert asked[0][0] is asked[1][0] is Standing.SELDOM
    assert asked[0][1] is Standing.OWN
    assert asked[1][1] is Standing.COMMON, "computed anew for both: nobody had it before"


def test_opening_is_every_keys_once_two_have_had_it_twice() -> None:
    repeated = Repeated()
    seen(repeated, "k", "a", "b")
    assert seen(repeated, "l", "a") is Standing.SELDOM
    assert not repeated.is_common(b"tools")
    assert seen(repeated, "l", "b") is Standing.COMMON
    assert repeated.is_common(b"tools")
    assert seen(repeated, "m", "a") is Standing.COMMON


def test_text_of_a_client_stays_its_keys_however_many_have_it() -> None:
    repeated = Repeated()
    for owner in "klmn":
        assert seen(repeated, owner, "a", "b", common=False) is Standing.OWN
    assert not repeated.is_common(b"tools")


def test_what_a_key_had_goes_with_it() -> None:
    repeated = Repeated()
    seen(repeated, "k", "a", "b")
    repeated.forget(lambda owner: owner == "k")
    assert seen(repeated, "l", "a", "b") is Standing.OWN


def test_no_more_openings_are_remembered_than_are_allowed() -> None:
    repeated = Repeated()
    for number in range(2000):
        repeated.saw(b"%d" % number, "k", b"a", common=True)
    assert repeated.saw(b"0", "k", b"b", common=True) is Standing.SELDOM, "it was forgotten"
    assert repeated.saw(b"1999", "k", b"b", common=True) is Standing.OWN
