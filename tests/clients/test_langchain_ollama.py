"""langchain-ollama: chats, streams, tools, classes, completions and embeddings."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from tests.clients.tried import tried
from tests.harness import Served
from tests.parrot_model import ANSWER, CITY, REPORT, THOUGHT

langchain_ollama = pytest.importorskip("langchain_ollama", exc_type=ImportError)

from langchain_core.messages import HumanMessage, ToolMessage  # noqa: E402
from langchain_core.tools import tool  # noqa: E402


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"40 degrees in {city}"


class Place(BaseModel):
    """Where something is."""

    city: Literal["Cairo", "Rome"]


@pytest.fixture
def where(box: Served) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {box.key}"}
    return {"base_url": box.url, "client_kwargs": {"headers": headers}}


@pytest.fixture
def chat(where: dict[str, Any]) -> Any:
    return langchain_ollama.ChatOllama(
        model="m:pirate", temperature=0, validate_model_on_init=True, **where
    )


@tried("langchain-ollama", "chat", "stream")
def test_langchain_ollama_gets_an_answer_and_a_stream(chat: Any) -> None:
    answer = chat.invoke("hi")
    assert answer.content == ANSWER
    assert answer.usage_metadata["output_tokens"] == 6
    pieces = list(chat.stream("hi"))
    assert "".join(piece.content for piece in pieces) == ANSWER
    assert len(pieces) > 3


@tried("langchain-ollama", "stream")
async def test_langchain_ollama_gets_a_stream_asynchronously(chat: Any) -> None:
    assert "".join([piece.content async for piece in chat.astream("hi")]) == ANSWER


@tried("langchain-ollama", "thinking")
def test_langchain_ollama_gets_thoughts(where: dict[str, Any]) -> None:
    chat = langchain_ollama.ChatOllama(model="m:thinker", reasoning=True, **where)
    answer = chat.invoke("hi")
    assert (answer.content, answer.additional_kwargs["reasoning_content"]) == (ANSWER, THOUGHT)


@tried("langchain-ollama", "tools")
@pytest.mark.parametrize("streaming", [False, True])
def test_langchain_ollama_calls_a_tool(chat: Any, streaming: bool) -> None:
    bound = chat.bind_tools([weather])
    messages: list[Any] = [HumanMessage("Is it hot?")]
    if streaming:
        first, *rest = bound.stream(messages)
        called = sum(rest, first)
    else:
        called = bound.invoke(messages)
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("weather", CITY)
    messages += [called, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    assert bound.invoke(messages).content == REPORT


@tried("langchain-ollama", "schema")
def test_langchain_ollama_parses_an_answer_into_a_class(chat: Any) -> None:
    assert isinstance(chat.with_structured_output(Place).invoke("Where?"), Place)


@tried("langchain-ollama", "completions", "embeddings")
def test_langchain_ollama_completes_and_gets_embeddings(where: dict[str, Any]) -> None:
    assert langchain_ollama.OllamaLLM(model="m", **where).invoke("hi") == ANSWER
    embeddings = langchain_ollama.OllamaEmbeddings(model="embed", **where)
    assert [len(one) for one in embeddings.embed_documents(["hello", "world"])] == [384, 384]
    assert len(embeddings.embed_query("hello")) == 384


@tried("langchain-ollama", "errors")
def test_langchain_ollama_raises_what_went_wrong(where: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="not found"):
        langchain_ollama.ChatOllama(model="none", **where).invoke("hi")
