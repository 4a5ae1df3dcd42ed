"""What changes from turn to turn, while the prompt stays as it is, is in no link."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.conversations.chain import Chain, Chains, wish_of

BILLING = "x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; cch={};You are"
MARK = {"cache_control": {"type": "ephemeral"}}


def of(body: dict[str, Any], format: str = "anthropic") -> Chain:
    return Chains().of(body, format, "k")


def block(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


def asked(*contents: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content} for content in contents], **more}


def test_mark_for_caching_is_part_of_no_message() -> None:
    result = {"type": "tool_result", "tool_use_id": "1", "content": [block("d", **MARK)]}
    plain = {**result, "content": [block("d")]}
    before = asked([block("a", **MARK)], [result, block("b", **MARK)])
    after = asked([block("a")], [plain, block("b")], [block("c", **MARK)])
    assert of(after).common(of(before).links) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"system": BILLING.format("a5145")}, {"system": BILLING.format("0f0f0")}),
        (
            {"system": [block(BILLING.format("a5145"))]},
            {"system": [block(BILLING.format("1" * 5))]},
        ),
        ({"system": [block("s", **MARK)]}, {"system": [block("s")]}),
        ({"tools": [{"name": "f", **MARK}]}, {"tools": [{"name": "f"}]}),
    ],
)
def test_nor_of_what_stands_before_the_messages(one: Any, other: Any) -> None:
    assert of(asked("a", **one)).links == of(asked("a", **other)).links


def test_nor_of_an_opening_with_tools() -> None:
    tools = [{"name": "f", "input_schema": {}}]
    bodies = [asked("a", system=BILLING.format(stamp), tools=tools) for stamp in ("a5145", "0f0f0")]
    wishes = [wish_of(body, Chains(), "anthropic", "k") for body in bodies]
    assert wishes[0].opening is not None
    assert wishes[0].chain == wishes[1].chain


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("You are. cch=a5145;", "You are. cch=0f0f0;"),
        (BILLING.format("a5145"), BILLING.format("a5145") + " else"),
        (BILLING.format("a5145"), BILLING.replace("2.1", "2.2").format("a5145")),
    ],
)
def test_everything_else_of_a_system_prompt_is(one: str, other: str) -> None:
    assert of(asked("a", system=one)).links != of(asked("a", system=other)).links
