"""How many tokens a prompt has: what llama-server is asked, and what is guessed without it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nesting import MAX_DEPTH
from gateway.proxy.prompt_size import Question, answer, estimate, question


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
def test_chats_are_counted_as_they_are(target: str, counter: str) -> None:
    asked = question(target, CHAT)
    assert asked == Question(counter, CHAT)
    assert answer(asked, b'{"input_tokens": 39}', CHAT) == 39
    for said in (b"", b"[]", b'{"input_tokens": -1}', b'{"input_tokens": "many"}', b"{}"):
        assert answer(asked, said, CHAT) is None


@pytest.mark.parametrize(
    ("body", "texts", "numbers"),
    [
        (dumped(prompt="a b"), "a b", 0),
        (dumped(prompt=["a", "b"]), "b\na", 0),
        (dumped(prompt=[1, 2, "a"]), "a", 2),
        (dumped(input_prefix="a", input_suffix="b"), "a\nb", 0),
        (dumped(query="a", documents=["b", "c"]), "a\nc\nb", 0),
        (dumped(prompt={"prompt_string": "a", "multimodal_data": ["x" * 2048]}), "a", 2),
    ],
)
def test_texts_are_split(body: bytes, texts: str, numbers: int) -> None:
    asked = question("/completion", body)
    assert asked is not None
    assert asked.target == "/tokenize"
    assert json.loads(asked.body)["content"] == texts
    assert answer(asked, b'{"tokens": [1, 2, 3]}', body) == 3 + numbers


def test_tools_may_nest_deeply() -> None:
    """As deep as any body may: orjson itself writes 254 levels."""
    schema: dict[str, Any] = {}
    for _ in range(MAX_DEPTH - 10):
        schema = {"a": schema}
    body = dumped(prompt="hi", tools=[{"function": {"parameters": schema}}])
    assert estimate(body) > MAX_DEPTH
    asked = question("/completion", body)
    assert asked is not None
    assert len(asked.body) > MAX_DEPTH


def test_tokens_given_as_numbers_need_nobody() -> None:
    body = dumped(prompt=[1, 2, 3])
    assert question("/completion", body) is None
    assert estimate(body) == 3


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
def test_any_bytes(body: bytes) -> None:
    assert estimate(body) >= 0
    question("/v1/completions", body)
    answer(Question("/tokenize", b""), body, body)


def test_however_deep() -> None:
    body = b'{"prompt": ' + b"[" * 900 + b'"a"' + b"]" * 900 + b"}"
    assert estimate(body) == 1
