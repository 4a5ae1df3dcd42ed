"""langchain-openai: chat, streams, tools, classes and embeddings."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from tests.clients.tried import tried
from tests.harness import Served
from tests.parrot_model import ANSWER, CITY, REPORT

langchain_openai = pytest.importorskip("langchain_openai", exc_type=ImportError)

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
def chat(box: Served) -> Any:
    # Held to a schema, the parrot finds all that is allowed equally likely, a thought too.
    return langchain_openai.ChatOpenAI(
        model="m:pirate", base_url=f"{box.url}/v1", api_key=box.key, max_retries=0, temperature=0
    )


@tried("langchain-openai", "chat", "stream")
def test_langchain_gets_an_answer_and_a_stream(chat: Any) -> None:
    answer = chat.invoke("hi")
    assert answer.content == ANSWER
    assert answer.usage_metadata["output_tokens"] == 6
    pieces = list(chat.stream("hi", stream_usage=True))
    assert "".join(piece.content for piece in pieces) == ANSWER
    assert len(pieces) > 3
    assert sum(piece.usage_metadata["output_tokens"] for piece in pieces if piece.usage_metadata)


@tried("langchain-openai", "chat", "stream")
async def test_langchain_gets_an_answer_asynchronously(chat: Any) -> None:
    assert (await chat.ainvoke("hi")).content == ANSWER
    assert "".join([piece.content async for piece in chat.astream("hi")]) == ANSWER


@tried("langchain-openai", "tools")
@pytest.mark.parametrize("streaming", [False, True])
def test_langchain_calls_a_tool(chat: Any, streaming: bool) -> None:
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


@tried("langchain-openai", "schema")
def test_langchain_parses_an_answer_into_a_class(chat: Any) -> None:
    place = chat.with_structured_output(Place, method="json_schema").invoke("Where?")
    assert isinstance(place, Place)


@tried("langchain-openai", "responses")
def test_langchain_uses_the_responses_api(box: Served) -> None:
    chat = langchain_openai.ChatOpenAI(
        model="m",
        base_url=f"{box.url}/v1",
        api_key=box.key,
        max_retries=0,
        use_responses_api=True,
    )
    assert chat.invoke("hi").text == ANSWER
    pieces = list(chat.stream("hi"))
    assert "".join(piece.text for piece in pieces) == ANSWER


@tried("langchain-openai", "embeddings")
def test_langchain_gets_embeddings(box: Served) -> None:
    # Texts go as they are: without this it sends tokens of OpenAI's own vocabulary.
    embeddings = langchain_openai.OpenAIEmbeddings(
        model="embed",
        base_url=f"{box.url}/v1",
        api_key=box.key,
        check_embedding_ctx_length=False,
    )
    cat, kitten, bank = embeddings.embed_documents(["A cat.", "A kitten.", "The bank was fined."])
    assert len(cat) == 384

    def alike(one: list[float], other: list[float]) -> float:
        return sum(x * y for x, y in zip(one, other, strict=True))

    assert alike(cat, kitten) > alike(cat, bank)


@tried("langchain-openai", "errors")
def test_langchain_raises_what_went_wrong(box: Served) -> None:
    chat = langchain_openai.ChatOpenAI(
        model="none", base_url=f"{box.url}/v1", api_key=box.key, max_retries=2
    )
    with pytest.raises(Exception, match="none"):
        chat.invoke("hi")
