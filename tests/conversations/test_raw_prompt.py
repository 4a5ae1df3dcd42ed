"""The chain of prompts that are no messages: raw completions, fill-in-the-middle."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.conversations.chain import NO_CHAIN, Chain, Chains, wish_in
from gateway.proxy.body import serialise

TEXT = "".join(random.Random(1).choice("abcd") for _ in range(5000))
TOKENS = [random.Random(2).randrange(50_000) for _ in range(1100)]


def of(body: dict[str, Any], format: str = "completion") -> Chain:
    return Chains().of(body, format, "k")


def infill(prefix: str, *extra: str, suffix: str = "}") -> dict[str, Any]:
    chunks = [{"filename": f"{n}.py", "text": text} for n, text in enumerate(extra)]
    return {"input_prefix": prefix, "input_suffix": suffix, "input_extra": chunks, "prompt": "def"}


def test_text_is_chained_by_its_blocks() -> None:
    whole, longer = of({"prompt": TEXT}), of({"prompt": TEXT + "more" * 100})
    edited = of({"prompt": TEXT[:3000] + "?" + TEXT[3001:]})
    assert whole.sizes == (1024, 2048, 3072, 4096)
    assert longer.common(whole.links) == 4
    assert edited.common(whole.links) == 2


def test_tokens_are_chained_by_their_blocks() -> None:
    whole, longer = of({"prompt": TOKENS}), of({"prompt": TOKENS + [7] * 100})
    edited = of({"prompt": [*TOKENS[:600], 1, *TOKENS[601:]]})
    assert whole.sizes == (768, 1536, 2304, 3072)
    assert longer.common(whole.links) == 4
    assert edited.common(whole.links) == 2


@pytest.mark.parametrize("prompt", [TEXT, TOKENS])
def test_list_with_one_prompt_is_that_prompt(prompt: Any) -> None:
    assert of({"prompt": [prompt]}) == of({"prompt": prompt})


def test_texts_between_tokens_are_one_prompt() -> None:
    begun = of({"prompt": [*TOKENS[:300], "text", *TOKENS[300:600], TEXT]})
    assert begun.sizes[:5] == (768, 900, 906, 1674, 1806)
    assert len(begun.links) == 5 + 4
    other = of({"prompt": [*TOKENS[:300], "other", *TOKENS[300:600], TEXT]})
    assert other.common(begun.links) == 2
    longer = of({"prompt": [*TOKENS[:300], "text", *TOKENS[300:600], TEXT + "more", 5]})
    assert longer.common(begun.links) == 5, "that text is another"


def test_media_of_a_prompt_count_by_their_content() -> None:
    def shown(data: str, text: str = TEXT) -> Chain:
        return of({"prompt": {"prompt_string": text, "multimodal_data": [data]}})

    assert shown("AAAA").sizes[-1] == 4096
    assert shown("AAAA", TEXT + "more").common(shown("AAAA").links) == 5
    assert shown("AAAA").common(shown("AAAB").links) == 0


def test_files_around_a_gap_come_before_its_prefix() -> None:
    asked = of(infill(TEXT, "one", "two"), "none")
    assert len(asked.links) == 2 + 4
    assert of(infill(TEXT, "one", "three"), "none").common(asked.links) == 1
    assert of(infill(TEXT + "x" * 500, "one", "two"), "none").common(asked.links) == 6
    assert of(infill(TEXT[:2000] + "?", "one", "two"), "none").common(asked.links) == 3


def test_what_stands_around_a_gap_is_no_part_of_another_prompt() -> None:
    around = infill(TEXT, "one")
    assert of({**around, "prompt": TEXT}) == of({"prompt": TEXT})
    assert of({**around, "prompt": TEXT}, "none").common(of({"prompt": TEXT}).links) == 0


def test_what_follows_the_gap_makes_no_difference_to_the_beginning() -> None:
    one, other = of(infill(TEXT, suffix="}"), "none"), of(infill(TEXT, suffix="]"), "none")
    assert one == other
    assert len(one.links) == 4


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": "short"},
        {"prompt": [1, 2, 3]},
        {"prompt": []},
        {"prompt": [TEXT, TEXT]},
        {"prompt": [TOKENS, TOKENS]},
        {"prompt": 7},
        {"prompt": [[2**70] * 300]},
        {"input_prefix": "a", "input_suffix": "b"},
        {"input_prefix": 3},
        {"input_prefix": TEXT, "input_extra": 5},
        {"prompt": {"prompt_string": TEXT, "multimodal_data": [2**70]}},
    ],
)
def test_what_cannot_be_chained_has_no_links(body: dict[str, Any]) -> None:
    assert of(body) == NO_CHAIN


def test_lone_surrogates_and_large_bodies_are_chained_alike() -> None:
    body = {"prompt": TEXT + "ä" * 2000}
    assert wish_in(serialise(body), "completion", "k")[0].chain == of(body)
    assert len(of({"prompt": "\ud800" * 2048}).links) == 2
