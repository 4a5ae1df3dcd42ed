"""litellm by its provider ``ollama_chat``, and ``ollama`` for embeddings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.tried import tried
from tests.harness import Served, project
from tests.parrot_model import ANSWER, CITY, REPORT, THOUGHT, TOOL

litellm = pytest.importorskip("litellm", exc_type=ImportError)

HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture
def where(box: Served, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    # What it asks of models besides (/api/show) takes both from here only.
    monkeypatch.setenv("OLLAMA_API_BASE", box.url)
    monkeypatch.setenv("OLLAMA_API_KEY", box.key)
    return {
        "model": "ollama_chat/m:pirate",
        "api_base": box.url,
        "api_key": box.key,
        "num_retries": 0,
    }


@tried("litellm-ollama", "chat", "stream")
def test_litellm_gets_an_answer_and_a_stream_from_ollamas_api(where: dict[str, Any]) -> None:
    answer = litellm.completion(messages=HELLO, **where)
    assert answer.choices[0].message.content == ANSWER
    assert answer.usage.completion_tokens == 6
    pieces = list(litellm.completion(messages=HELLO, stream=True, **where))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == ANSWER


@tried("litellm-ollama", "stream")
async def test_litellm_gets_a_stream_asynchronously_from_ollamas_api(where: dict[str, Any]) -> None:
    stream = await litellm.acompletion(messages=HELLO, stream=True, **where)
    assert "".join([piece.choices[0].delta.content or "" async for piece in stream]) == ANSWER


@tried("litellm-ollama", "thinking")
def test_litellm_gets_thoughts_from_ollamas_api(where: dict[str, Any]) -> None:
    where = {**where, "model": "ollama_chat/m:thinker"}
    message = litellm.completion(messages=HELLO, think=True, **where).choices[0].message
    assert (message.content, message.reasoning_content) == (ANSWER, THOUGHT)


@tried("litellm-ollama", "tools")
def test_litellm_calls_a_tool_by_ollamas_api(where: dict[str, Any]) -> None:
    called = litellm.completion(messages=HELLO, tools=[TOOL], **where).choices[0].message
    (call,) = called.tool_calls
    assert json.loads(call.function.arguments) == CITY
    told = {"role": "tool", "tool_call_id": call.id, "content": "40 degrees"}
    messages = [*HELLO, called.model_dump(), told]
    answer = litellm.completion(messages=messages, tools=[TOOL], **where)
    assert answer.choices[0].message.content == REPORT


@tried("litellm-ollama", "schema")
def test_litellm_keeps_to_a_schema_by_ollamas_api(where: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    answer = litellm.completion(messages=HELLO, response_format=asked, temperature=0, **where)
    assert set(json.loads(answer.choices[0].message.content)) == {"a"}


@pytest.fixture
def open_box(tmp_path: Path, minilm_model: Path) -> Iterator[Served]:
    """A gateway whose neighbours need no key for Ollama's API."""
    models = {"embed": {"params": {"model": str(minilm_model)}, "embeddings": True}}
    auth = {"ollama_open_to": ["127.0.0.1"]}
    config = project(tmp_path, models, llama_server="auto", auth=auth)
    served = Served(tmp_path, "--config", str(config))
    yield served
    served.stop()


@tried("litellm-ollama", "embeddings")
def test_litellm_gets_embeddings_for_which_it_can_send_no_key(open_box: Served) -> None:
    answer = litellm.embedding(
        input=["hello", "world"], model="ollama/embed", api_base=open_box.url, api_key="unsent"
    )
    assert [len(item["embedding"]) for item in answer.data] == [384, 384]


@tried("litellm-ollama", "errors")
def test_litellm_raises_what_went_wrong_with_ollamas_api(where: dict[str, Any]) -> None:
    with pytest.raises(litellm.APIConnectionError, match="not found"):
        litellm.completion(messages=HELLO, **{**where, "model": "ollama_chat/none"})
