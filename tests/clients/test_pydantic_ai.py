"""pydantic-ai: agents with a tool, over both of OpenAI's APIs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.tried import tried
from tests.harness import Served
from tests.parrot_model import ANSWER, REPORT

pydantic_ai = pytest.importorskip("pydantic_ai", exc_type=ImportError)

from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel  # noqa: E402
from pydantic_ai.providers.openai import OpenAIProvider  # noqa: E402


@pytest.fixture(params=[OpenAIChatModel, OpenAIResponsesModel])
def model(box: Served, request: pytest.FixtureRequest) -> Any:
    provider = OpenAIProvider(base_url=f"{box.url}/v1", api_key=box.key)
    return request.param("m:pirate", provider=provider)


@tried("pydantic-ai", "chat", "stream", "responses")
async def test_pydantic_ai_gets_an_answer(model: Any) -> None:
    agent = pydantic_ai.Agent(model, instructions="Be brief.")
    result = await agent.run("hi")
    assert result.output == ANSWER
    async with agent.run_stream("hi") as stream:
        assert [text async for text in stream.stream_text()][-1] == ANSWER


@tried("pydantic-ai", "tools")
async def test_pydantic_ai_calls_a_tool(model: Any) -> None:
    agent = pydantic_ai.Agent(model)
    asked = []

    @agent.tool_plain
    def weather(city: str) -> str:
        asked.append(city)
        return "40 degrees"

    assert (await agent.run("Is it hot?")).output == REPORT
    async with agent.run_stream("Is it hot?") as stream:
        assert await stream.get_output() == REPORT
    assert asked == ["Cairo", "Cairo"]
