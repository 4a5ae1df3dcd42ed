"""Responses with a memory, as OpenAI's documentation shows them: in its clients and Agents SDK."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.clients.test_node import told_by
from tests.clients.tried import tried
from tests.harness import Served, project
from tests.parrot_model import ANSWER, CITY, REPORT

RUNNING = ("queued", "in_progress")


@pytest.fixture(scope="module")
def memory(
    tmp_path_factory: pytest.TempPathFactory, parrot_model: Path, tiny_model: Path
) -> Iterator[Served]:
    """A gateway that keeps responses, with a model that doesn't stop beside ``m``."""
    root = tmp_path_factory.mktemp("memory")
    endless = {"temperature": 0, "grammar": "root ::= [a-z ] root"}
    models = {
        "m": {"params": {"model": str(parrot_model), "ctxSize": 4096, "threads": 1}},
        "endless": {
            "params": {"model": str(tiny_model), "ctxSize": 8192, "threads": 1},
            "setParams": endless,
        },
    }
    config = project(root, models, llama_server="auto", responses={"store": True})
    served = Served(root, "--config", str(config))
    yield served
    served.stop()


@tried("openai-python", "memory")
def test_openai_python_goes_on_with_what_was_said(memory: Served) -> None:
    client = openai.OpenAI(base_url=f"{memory.url}/v1", api_key=memory.key, max_retries=0)
    first = client.responses.create(model="m", input="tell me a joke")
    second = client.responses.create(
        model="m",
        previous_response_id=first.id,
        input=[{"role": "user", "content": "explain why this is funny."}],
    )
    assert (first.output_text, second.output_text) == (ANSWER, ANSWER)
    assert client.responses.retrieve(second.id).output_text == ANSWER
    assert len(client.responses.input_items.list(second.id).data) == 3

    conversation = client.conversations.create(metadata={"topic": "jokes"})
    for text in ("What are the 5 Ds of dodgeball?", "And of chess?"):
        answered = client.responses.create(model="m", input=text, conversation=conversation.id)
        assert answered.output_text == ANSWER
    assert len(list(client.conversations.items.list(conversation.id, limit=2))) == 4

    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


@tried("openai-python", "background")
def test_openai_python_asks_in_the_background(memory: Served) -> None:
    client = openai.OpenAI(base_url=f"{memory.url}/v1", api_key=memory.key, max_retries=0)
    response = client.responses.create(model="m", input="Write a very long novel", background=True)
    assert response.status in RUNNING
    while response.status in RUNNING:
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    assert (response.status, response.output_text) == ("completed", ANSWER)

    stream = client.responses.create(model="m", input="hi", background=True, stream=True)
    seen = [next(stream) for _ in range(4)]
    stream.close()
    id: Any = seen[0].response.id  # type: ignore[union-attr]
    cursor = seen[-1].sequence_number
    rest = list(client.responses.retrieve(id, stream=True, starting_after=cursor))
    assert [event.sequence_number for event in rest] == [
        cursor + 1 + place for place in range(len(rest))
    ]
    assert rest[-1].type == "response.completed"

    endless = client.responses.create(model="endless", input="hi", background=True)
    cancelled = client.responses.cancel(endless.id)
    assert cancelled.status == "cancelled"
    assert client.responses.retrieve(endless.id).status == "cancelled"


@tried("openai-node", "memory", "background")
def test_openai_node_goes_on_with_what_was_said(memory: Served) -> None:
    environ = {"OPENAI_BASE_URL": f"{memory.url}/v1", "OPENAI_API_KEY": memory.key}
    told = told_by("openai_memory.mjs", "openai", environ)
    assert told == {
        "second": ANSWER,
        "retrieved": ANSWER,
        "inputs": 3,
        "said": 4,
        "gone": [404, "response_not_found"],
        "begun": True,
        "background": ["completed", ANSWER],
        "next": 1,
        "last": "response.completed",
        "cancelled": "cancelled",
    }


@tried("openai-agents", "tools", "memory")
async def test_agents_sdk_remembers_and_calls_a_tool(memory: Served) -> None:
    agents = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)
    asked: list[str] = []

    @agents.function_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return "40 degrees"

    async with openai.AsyncOpenAI(base_url=f"{memory.url}/v1", api_key=memory.key) as client:
        model = agents.OpenAIResponsesModel(model="m", openai_client=client)
        agent = agents.Agent(name="Guide", instructions="Be brief.", model=model)
        first = await agents.Runner.run(agent, "Which city has the Golden Gate Bridge?")
        second = await agents.Runner.run(
            agent, "Which state is it in?", previous_response_id=first.last_response_id
        )
        assert (first.final_output, second.final_output) == (ANSWER, ANSWER)
        kept = await client.responses.input_items.list(second.last_response_id, order="asc")
        assert [item.role for item in kept.data] == ["user", "assistant", "user"]  # type: ignore[union-attr]

        session = agents.OpenAIConversationsSession(openai_client=client)
        helper = agents.Agent(name="Helper", model=model, tools=[weather])
        for _ in range(2):
            result = await agents.Runner.run(helper, "Is it hot in Cairo?", session=session)
            assert result.final_output == REPORT
        assert asked == [CITY["city"]] * 2
        items = await session.get_items()
        kinds = ["message", "function_call", "function_call_output", "message"]
        assert [item.get("type", "message") for item in items] == kinds * 2
        last = await session.pop_item()
        assert last["role"] == "assistant"
        assert len(await session.get_items()) == 7
        await session.clear_session()
