"""Ollama's own client for Python, on the gateway's /api."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.tried import tried
from tests.harness import Served
from tests.parrot_model import ANSWER, CITY, REPORT, TOOL

ollama = pytest.importorskip("ollama", exc_type=ImportError)

HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture
def where(box: Served) -> dict[str, Any]:
    return {"host": box.url, "headers": {"Authorization": f"Bearer {box.key}"}}


@pytest.fixture
def client(where: dict[str, Any]) -> Any:
    return ollama.Client(**where)


@tried("ollama-python", "chat", "stream")
def test_ollama_gets_an_answer_and_a_stream(client: Any) -> None:
    answer = client.chat("m:pirate", HELLO, think=False, keep_alive="5m")
    assert (answer.message.content, answer.done_reason) == (ANSWER, "stop")
    assert answer.eval_count == 6
    assert answer.eval_duration > 0
    pieces = list(client.chat("m", HELLO, stream=True))
    assert "".join(piece.message.content for piece in pieces) == ANSWER
    assert [piece.done for piece in pieces][-2:] == [False, True]


@tried("ollama-python", "stream")
async def test_ollama_gets_a_stream_asynchronously(where: dict[str, Any]) -> None:
    stream = await ollama.AsyncClient(**where).chat("m:latest", HELLO, stream=True)
    assert "".join([piece.message.content async for piece in stream]) == ANSWER


@tried("ollama-python", "tools")
def test_ollama_calls_a_tool(client: Any) -> None:
    told = client.chat("m", HELLO, tools=[TOOL]).message
    (call,) = told.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", CITY)
    result = {"role": "tool", "content": "40 degrees", "tool_name": "weather"}
    answer = client.chat("m", [*HELLO, told, result], tools=[TOOL])
    assert answer.message.content == REPORT


@tried("ollama-python", "completions")
def test_ollama_generates_with_a_context(client: Any) -> None:
    answer = client.generate("m", "hi")
    assert answer.response == ANSWER
    again = client.generate("m", "and?", context=answer.context)
    assert again.prompt_eval_count > answer.prompt_eval_count


@tried("ollama-python", "schema")
def test_ollama_keeps_to_a_schema(client: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    # Held to a schema, the parrot finds all that is allowed equally likely, a thought too.
    options = {"num_predict": 60, "temperature": 0}
    answer = client.chat("m", HELLO, format=schema, options=options)
    assert answer.message.content.lstrip().startswith("{")


@tried("ollama-python", "embeddings")
def test_ollama_gets_embeddings(client: Any) -> None:
    assert [len(v) for v in client.embed("embed", ["hello", "world"]).embeddings] == [384, 384]
    assert len(client.embeddings("embed", "hello").embedding) == 384


@tried("ollama-python", "models")
def test_ollama_lists_and_shows_models(client: Any) -> None:
    assert {one.model for one in client.list().models} == {"embed:latest", "m:latest", "m:pirate"}
    shown = client.show("m")
    assert shown.details.family == "llama"
    assert "tools" in shown.capabilities
    assert client.show("embed").capabilities == ["embedding"]
    client.generate("m")
    assert "m:latest" in {one.model for one in client.ps().models}


@tried("ollama-python", "errors")
def test_ollama_raises_what_went_wrong(client: Any, box: Served) -> None:
    with pytest.raises(ollama.ResponseError, match="not found, try pulling it first") as refused:
        client.chat("none", HELLO)
    assert refused.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="library"):
        list(client.pull("llama3.2", stream=True))
    with pytest.raises(ollama.ResponseError) as refused:
        ollama.Client(box.url).list()
    assert refused.value.status_code == 401
