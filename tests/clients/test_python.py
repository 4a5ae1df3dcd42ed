"""The clients of OpenAI and Anthropic for Python. The main suite has them, too; here they are put
down in the record.
"""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from tests.clients.tried import tried
from tests.harness import Served
from tests.parrot_model import ANSWER, CITY, REPORT, THOUGHT, TOOL

HELLO: list[Any] = [{"role": "user", "content": "hi"}]


@tried(
    "openai-python",
    *("chat", "stream", "tools", "thinking", "responses", "completions"),
    *("embeddings", "models", "errors"),
)
def test_openai_python_gets_answers(box: Served) -> None:
    client: Any = openai.OpenAI(base_url=f"{box.url}/v1", api_key=box.key, max_retries=0)
    chat = client.chat.completions
    assert chat.create(model="m:pirate", messages=HELLO).choices[0].message.content == ANSWER
    pieces = chat.create(model="m", messages=HELLO, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == ANSWER
    called = chat.create(model="m", messages=HELLO, tools=[TOOL]).choices[0].message
    (call,) = called.tool_calls
    assert json.loads(call.function.arguments) == CITY
    told = {"role": "tool", "tool_call_id": call.id, "content": "40 degrees"}
    answer = chat.create(model="m", messages=[*HELLO, called, told], tools=[TOOL])
    assert answer.choices[0].message.content == REPORT
    thought = chat.create(model="m:thinker", messages=HELLO).choices[0].message
    assert (thought.content, thought.reasoning_content) == (ANSWER, THOUGHT)
    assert client.responses.create(model="m", input="hi").output_text == ANSWER
    assert client.completions.create(model="m", prompt="x").choices[0].text == ANSWER
    embedded = client.embeddings.create(model="embed", input=["hello", "world"])
    assert [len(one.embedding) for one in embedded.data] == [384, 384]
    assert [model.id for model in client.models.list()] == ["embed", "m", "m:pirate"]
    with pytest.raises(openai.NotFoundError):
        chat.create(model="none", messages=HELLO)


@tried("anthropic-python", "chat", "stream", "tools", "errors")
def test_anthropic_python_gets_answers(box: Served) -> None:
    client: Any = anthropic.Anthropic(base_url=box.url, api_key=box.key, max_retries=0)
    asked: dict[str, Any] = {"max_tokens": 50, "messages": HELLO}
    (block,) = client.messages.create(model="m:pirate", **asked).content
    assert block.text == ANSWER
    with client.messages.stream(model="m", **asked) as stream:
        assert "".join(stream.text_stream) == ANSWER
    function = TOOL["function"]
    tool = {"name": function["name"], "input_schema": function["parameters"]}
    called = client.messages.create(model="m", tools=[tool], **asked)
    (use,) = [one for one in called.content if one.type == "tool_use"]
    assert (called.stop_reason, use.input) == ("tool_use", CITY)
    told = {"type": "tool_result", "tool_use_id": use.id, "content": "40 degrees"}
    messages = [
        *HELLO,
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [told]},
    ]
    answer = client.messages.create(model="m", tools=[tool], messages=messages, max_tokens=50)
    assert answer.content[0].text == REPORT
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="none", **asked)
