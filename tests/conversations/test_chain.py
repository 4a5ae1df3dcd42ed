"""The chain of hashes over what makes a prompt."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.conversations.chain import NO_CHAIN, Chain, Chains, Wish, may_answer_more, wish_in
from gateway.conversations.opening import Written
from gateway.conversations.shared import as_written
from gateway.proxy.body import serialise


def chat(*texts: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return {"messages": messages, **more}


def of(body: dict[str, Any], format: str = "chat", owner: str = "k") -> Chain:
    return Chains().of(body, format, owner)


def test_longer_conversation_begins_with_the_links_of_a_shorter_one() -> None:
    shorter, longer = of(chat("a", "b", "c")), of(chat("a", "b", "c", "d", "e"))
    assert longer.links[:3] == shorter.links
    assert longer.common(shorter.links) == 3
    assert longer.sizes == (1, 2, 3, 4, 5)


def test_edit_changes_every_link_from_there_on() -> None:
    before, after = of(chat("a", "b", "c", "d")), of(chat("a", "b", "x", "d"))
    assert after.common(before.links) == 2
    assert not set(after.links[2:]) & set(before.links)


def test_links_are_the_same_whether_seen_before_or_not_and_in_another_process() -> None:
    chains, body = Chains(), chat("a", "b", "c")
    first = chains.of(body, "chat", "k")
    assert chains.of(body, "chat", "k") == first
    assert wish_in(serialise(body), "chat", "k") == (Wish(first), None)


def test_more_than_is_remembered_is_chained_alike() -> None:
    chains = Chains(most=3)
    bodies = [chat(*(f"{n} {m}" for m in range(5))) for n in range(4)]
    assert [chains.of(body, "chat", "k") for body in bodies] == [of(body) for body in bodies]


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning_effort": "low"},
    ],
)
def test_what_else_makes_the_prompt_is_in_the_first_link(more: dict[str, Any]) -> None:
    assert of(chat("a", **more)).common(of(chat("a")).links) == 0


def test_sampling_makes_no_difference() -> None:
    assert of(chat("a", temperature=0.3, stream=True, max_tokens=3)) == of(chat("a"))


def test_keys_share_no_link() -> None:
    assert not set(of(chat("a", "b"), owner="k").links) & set(of(chat("a", "b"), owner="l").links)


def test_role_and_further_fields_of_a_message_count() -> None:
    said = {"messages": [{"role": "system", "content": "a"}]}
    called = {"messages": [{"role": "user", "content": "a", "name": "n"}]}
    assert len({of(body).links for body in (said, called, chat("a"))}) == 3


def test_pictures_count_by_their_content() -> None:
    def shown(data: str) -> Chain:
        parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}]
        return of({"messages": [{"role": "user", "content": parts}]})

    assert shown("AAAA") == shown("AAAA")
    assert shown("AAAA") != shown("AAAB")


@pytest.mark.parametrize(
    ("format", "one", "other"),
    [
        ("anthropic", {"system": "s", **chat("a")}, {"system": "t", **chat("a")}),
        ("responses", {"input": "a"}, {"input": "b"}),
        ("responses", {"instructions": "s", "input": "a"}, {"instructions": "t", "input": "a"}),
    ],
)
def test_every_dialect_is_chained(format: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    assert of(one, format).links
    assert of(one, format).common(of(other, format).links) == 0


def test_numbers_that_only_the_standard_library_reads_are_no_error() -> None:
    body = chat("a", tools=[{"n": 2**70}])
    assert of(body) == NO_CHAIN
    assert wish_in(serialise(body), "chat", "k")[0].named is None


@pytest.mark.parametrize(
    ("id_slot", "named"),
    [
        *((1, 1), (0, 0), (2**31 - 1, 2**31 - 1), (None, None)),
        *((-1, -1), ("2", -1), (1.0, -1), (True, -1)),
        # llama-server makes another number of these than a remainder.
        *((-2, -1), (2**31, -1), (2**32 + 1, -1)),
    ],
)
def test_slot_that_a_body_names_is_found(id_slot: Any, named: int | None) -> None:
    wish, _ = wish_in(serialise(chat("a", id_slot=id_slot)), "chat", "k")
    assert wish == Wish(of(chat("a")), named)


@pytest.mark.parametrize(
    ("limits", "more"),
    [
        ({}, True),
        ({"max_tokens": None}, True),
        ({"max_tokens": 100}, False),
        ({"max_tokens": 101}, True),
        ({"max_completion_tokens": 9, "n_predict": -1}, True),
        ({"max_output_tokens": 9}, False),
    ],
)
def test_how_long_an_answer_may_be_is_seen(limits: dict[str, Any], more: bool) -> None:
    assert may_answer_more(limits, 100) is more


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("a", 1),
        (["a"], 1),
        ([[1, 2]], 1),
        ([1, 2], 1),
        ([1, "a"], 1),
        (["a", "b"], 2),
        ([[1], [2]], 2),
        (["a", [2]], 2),
    ],
)
def test_several_prompts_are_seen(prompt: Any, count: int) -> None:
    assert wish_in(serialise({"prompt": prompt}), "completion", "k")[0].prompts == count


@pytest.mark.parametrize("more", [{"cache_prompt": False}, {"lora": [{"id": 0, "scale": 1.0}]}])
def test_request_for_which_a_slot_is_emptied_goes_on_with_nothing(more: dict[str, Any]) -> None:
    wish, _ = wish_in(serialise(chat("a", "b", "c", **more)), "chat", "k")
    assert wish == Wish(NO_CHAIN)


# --- what keys share -----------------------------------------------------------------------

TEXT = "You are a pirate."


def pirate(text: str = TEXT, **more: Any) -> dict[str, Any]:
    said = [{"role": "system", "content": text}, {"role": "user", "content": "a"}]
    return {"messages": said, **more}


def wish(body: dict[str, Any], format: str = "chat", owner: str = "k") -> Wish:
    return wish_in(serialise(body), format, owner, Written(TEXT))[0]


@pytest.mark.parametrize("more", [{}, {"reasoning_effort": "low"}])
def test_keys_share_the_personality_and_nothing_behind_it(more: dict[str, Any]) -> None:
    one, other = wish(pirate(**more)).chain, wish(pirate(**more), owner="l").chain
    assert (one.common(other.links), one.shared, len(one.links)) == (1, 1, 3)
    assert one.sizes[0] == len(TEXT)
    assert not set(one.links[1:]) & set(other.links[1:])


@pytest.mark.parametrize(
    ("format", "body"),
    [
        ("chat", pirate(f"{TEXT}\n\nAnd mine.")),
        ("anthropic", {"system": TEXT, **chat("a")}),
        ("anthropic", {"system": [{"type": "text", "text": f"{TEXT}\n\n"}], **chat("a")}),
        ("responses", {"instructions": TEXT, "input": "a"}),
    ],
)
def test_every_dialect_shares_one_personality(format: str, body: dict[str, Any]) -> None:
    assert wish(body, format).chain.common(wish(pirate()).chain.links) == 1


@pytest.mark.parametrize(
    "body",
    [
        pirate("You are a pirate. Mine."),
        pirate("Mine."),
        chat("a"),
        pirate(chat_template_kwargs={"enable_thinking": True, "name": "secret"}),
        pirate(chat_template_kwargs={"enable_thinking": "secret"}),
        pirate(reasoning_effort="secret"),
        pirate(cache_prompt=False),
    ],
)
def test_nothing_that_a_client_made_up_is_shared(body: dict[str, Any]) -> None:
    made = wish(body)
    assert (made.chain.shared, made.prefix) == (0, None)
    assert not set(made.chain.links) & set(wish(body, owner="l").chain.links)


def test_template_arguments_make_another_prefix() -> None:
    thinking = [pirate(chat_template_kwargs={"enable_thinking": on}) for on in (False, True)]
    bodies = [pirate(), pirate(reasoning_effort="low"), *thinking]
    assert len({wish(body).chain.links[0] for body in bodies}) == 4


#: What an operator wrote for the chat template.
ARGUMENTS = {"style": "terse", "enable_thinking": False}


@pytest.mark.parametrize("effort", [{}, {"reasoning_effort": "high"}])
def test_what_an_operator_tells_the_template_is_shared(effort: dict[str, Any]) -> None:
    written = Written(TEXT, arguments=as_written(ARGUMENTS))

    def first(arguments: dict[str, Any], owner: str, as_told: Written = written) -> bytes:
        body = serialise(pirate(chat_template_kwargs=arguments, **effort))
        return wish_in(body, "chat", owner, as_told)[0].chain.links[0]

    told = first(ARGUMENTS, "k")
    assert told == first(dict(reversed(ARGUMENTS.items())), "l")
    for other in ({**ARGUMENTS, "mine": 1}, {"style": "terse"}):
        assert first(other, "k") not in (told, first(other, "l"))
    elsewhere = Written(TEXT, arguments=as_written({"style": "long"}))
    assert first(ARGUMENTS, "k", elsewhere) != first(ARGUMENTS, "l", elsewhere)


# --- long conversations --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_long_conversation_has_the_same_links_remembered_or_not(seed: int) -> None:
    """It grows, is asked again, is edited somewhere, forks, and has parts and tools in it."""
    chosen, chains = random.Random(seed), Chains()
    messages: list[dict[str, Any]] = []
    for turn in range(60):
        kind = chosen.random()
        if messages and kind < 0.1:
            messages = messages[: chosen.randrange(len(messages))]
        elif messages and kind < 0.2:
            at = chosen.randrange(len(messages))
            messages = [*messages[:at], {"role": "user", "content": "b"}, *messages[at + 1 :]]
        content: Any = [{"type": "text", "text": f"{turn}"}] if kind > 0.7 else f"{turn}"
        messages = [*messages, {"role": "user", "content": content}]
        messages.append({"content": "", "role": "assistant", "tool_calls": [{"id": f"{turn}"}]})
        body = {"messages": messages}
        assert chains.of(body, "chat", "k") == of(body)
