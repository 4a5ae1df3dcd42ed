"""litellm, as a client of an OpenAI-compatible server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.tried import tried
from tests.harness import Served
from tests.parrot_model import ANSWER, CITY, REPORT, THOUGHT, TOOL

litellm = pytest.importorskip("litellm", exc_type=ImportError)

HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture
def where(box: Served) -> dict[str, Any]:
    return {
        "model": "openai/m:pirate",
        "api_base": f"{box.url}/v1",
        "api_key": box.key,
        "num_retries": 0,
    }


@tried("litellm", "chat", "stream")
def test_litellm_gets_an_answer_and_a_stream(where: dict[str, Any]) -> None:
    answer = litellm.completion(messages=HELLO, **where)
    assert answer.choices[0].message.content == ANSWER
    assert answer.usage.completion_tokens == 6
    pieces = list(litellm.completion(messages=HELLO, stream=True, **where))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == ANSWER


@tried("litellm", "chat", "stream")
async def test_litellm_gets_an_answer_asynchronously(where: dict[str, Any]) -> None:
    stream = await litellm.acompletion(messages=HELLO, stream=True, **where)
    pieces = [piece.choices[0].delta.content or "" async for piece in stream]
    assert "".join(pieces) == ANSWER


@tried("litellm", "thinking")
def test_litellm_gets_thoughts(where: dict[str, Any]) -> None:
    extra = {"extra_body": {"chat_template_kwargs": {"think": True}}}
    message = litellm.completion(messages=HELLO, **where, **extra).choices[0].message
    assert (message.content, message.reasoning_content) == (ANSWER, THOUGHT)


@tried("litellm", "tools")
def test_litellm_calls_a_tool(where: dict[str, Any]) -> None:
    called = litellm.completion(messages=HELLO, tools=[TOOL], **where).choices[0].message
    (call,) = called.tool_calls
    assert json.loads(call.function.arguments) == CITY
    told = {"role": "tool", "tool_call_id": call.id, "content": "40 degrees"}
    messages = [*HELLO, called.model_dump(), told]
    answer = litellm.completion(messages=messages, tools=[TOOL], **where)
    assert answer.choices[0].message.content == REPORT


@tried("litellm", "responses")
def test_litellm_uses_the_responses_api(where: dict[str, Any]) -> None:
    answer = litellm.responses(input="hi", **where)
    assert answer.output[0].content[0].text == ANSWER
    kinds = [event.type for event in litellm.responses(input="hi", stream=True, **where)]
    assert kinds[-1] == "response.completed"


@tried("litellm", "embeddings")
def test_litellm_gets_embeddings(where: dict[str, Any]) -> None:
    answer = litellm.embedding(input=["hello", "world"], **{**where, "model": "openai/embed"})
    assert [len(item["embedding"]) for item in answer.data] == [384, 384]


@tried("litellm", "errors")
def test_litellm_raises_what_went_wrong(where: dict[str, Any]) -> None:
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(messages=HELLO, **{**where, "model": "openai/none"})
    long = [{"role": "user", "content": "x" * 9000}]
    with pytest.raises(litellm.BadRequestError, match="2048 tokens"):
        litellm.completion(messages=long, **where)
