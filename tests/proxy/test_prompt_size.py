"""How many tokens a prompt has: what llama-server is asked, and what is guessed without it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nesting import MAX_DEPTH
from gateway.proxy.prompt_size import (
    Question,
    answer,
    beside_texts,
    estimate,
    questions,
    split_size,
)


def dumped(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


CHAT = dumped(messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    ("target", "counter"),
    [
        ("/v1/chat/completions", "/v1/chat/completions/input_tokens"),
        ("/v1/chat/completions?x=1", "/v1/chat/completions/input_tokens"),
        ("/v1/responses", "/v1/responses/input_tokens"),
        ("/v1/messages", "/v1/messages/count_tokens"),
    ],
)
def test_chats_are_counted_as_they_are(
    target: str, counter: str, subtests: pytest.Subtests
) -> None:
    (asked,) = questions(target, CHAT)
    assert asked == Question(counter, CHAT)
    assert answer(asked, b'{"input_tokens": 39}') == 39
    assert beside_texts(target, CHAT) == 0
    for said in (b"", b"[]", b'{"input_tokens": -1}', b'{"input_tokens": "many"}', b"{}"):
        with subtests.test(f"{said!r:.80}"):
            assert answer(asked, said) is None


@pytest.mark.parametrize(
    ("body", "texts", "numbers"),
    [
        (dumped(prompt="a b"), "a b", 0),
        (dumped(prompt=[1, 2, "a"]), "a", 2),
        (dumped(input_prefix="a", input_suffix="b"), "a\nb", 0),
        (dumped(prompt="a", content=["b"], documents=["c"]), "a\nb\nc", 0),
        (dumped(prompt={"prompt_string": "a", "multimodal_data": ["x" * 2048]}), "a", 2),
    ],
)
def test_texts_are_split(body: bytes, texts: str, numbers: int) -> None:
    (asked,) = questions("/completion", body)
    assert asked.target == "/tokenize"
    assert json.loads(asked.body) == {"content": texts, "add_special": True}
    assert answer(asked, b'{"tokens": [1, 2, 3]}') == 3
    assert beside_texts("/completion", body) == numbers


@pytest.mark.parametrize(
    ("target", "body", "asked"),
    [
        ("/completion", dumped(prompt=["a", "b"]), [(["a", "b"], 1), ("", 2)]),
        ("/v1/completions", dumped(prompt=["a", "b"]), [(["a", "b"], 1), ("", 2)]),
        ("/embedding", dumped(content=["a", "b", "c"]), [(["a", "b", "c"], 1), ("", 3)]),
        ("/v1/embeddings", dumped(input=["a"], content="b"), [(["a", "b"], 1), ("", 2)]),
        ("/rerank", dumped(query="q", texts=["a", "b"]), [(["a", "b"], 1), ("", 2), ("q", 2)]),
        ("/v1/rerank?x", dumped(query="q", documents=["a"]), [(["a"], 1), ("", 1), ("q", 1)]),
        # One prompt, of which some is given as tokens; what no such route reads as several texts.
        ("/completion", dumped(prompt=["a", 1]), [("a", 1)]),
        ("/infill", dumped(input=["a", "b"]), [("b\na", 1)]),
    ],
)
def test_each_text_of_several_is_split_by_itself(
    target: str, body: bytes, asked: list[tuple[Any, int]]
) -> None:
    found = questions(target, body)
    assert [(json.loads(one.body)["content"], one.times) for one in found] == asked
    assert answer(found[-1], b'{"tokens": [1, 2, 3]}') == 3 * asked[-1][1]
    assert json.loads(found[0].body)["add_special"] is (len(asked) == 1)


def test_a_query_is_read_with_each_document() -> None:
    body = dumped(query="q" * 300, documents=["a"] * 50)
    assert estimate(body, target="/v1/rerank") == (300 * 50 + 50) // 3 + 1
    assert estimate(body) == (300 + 50) // 3 + 1


def test_what_no_model_reads_counts_a_hundredth() -> None:
    assert split_size(0, 0) == 0
    assert split_size(1, 0) == 1
    assert split_size(30_000, 30_000) == 200


def test_tools_may_nest_deeply() -> None:
    """As deep as any body may: orjson itself writes 254 levels."""
    schema: dict[str, Any] = {}
    for _ in range(MAX_DEPTH - 10):
        schema = {"a": schema}
    body = dumped(prompt="hi", tools=[{"function": {"parameters": schema}}])
    assert estimate(body) > MAX_DEPTH
    (asked,) = questions("/completion", body)
    assert len(asked.body) > MAX_DEPTH


def test_tokens_given_as_numbers_need_nobody() -> None:
    body = dumped(prompt=[1, 2, 3])
    assert questions("/completion", body) == []
    assert beside_texts("/completion", body) == estimate(body) == 3


def test_media_are_not_text() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 2**20}}
    text = {"type": "text", "text": "What is it?"}
    tokens = estimate(dumped(messages=[{"role": "user", "content": [text, picture]}]))
    assert 1024 < tokens < 1100
    assert estimate(object(), 4096) == 4
    assert estimate(object()) == 0


@given(st.text(min_size=1), st.dictionaries(st.text(), st.text()), st.integers(0, 5))
def test_nothing_beside_it_makes_a_prompt_smaller(
    text: str, more: dict[str, str], level: int
) -> None:
    held: Any = text
    for _ in range(level):
        held = [{"content": held}]
    body = dumped(messages=held)
    least = estimate(body)
    assert least >= math.ceil(len(text.encode("utf-8", "surrogatepass")) / 3) or text[:5] == "data:"
    assert estimate(dumped(**{**more, "messages": held})) >= least


@given(st.binary(max_size=200))
def test_any_bytes_are_estimated(body: bytes) -> None:
    assert estimate(body) >= 0
    questions("/v1/completions", body)
    beside_texts("/v1/completions", body)
    answer(Question("/tokenize", b""), body)


def test_deep_bodies_are_estimated() -> None:
    body = b'{"prompt": ' + b"[" * 900 + b'"a"' + b"]" * 900 + b"}"
    assert estimate(body) == 1
