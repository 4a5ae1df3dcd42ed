"""Responses with a memory, by OpenAI's own client, of a real llama-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.harness import MakeGateway, Running, eventually
from tests.parrot_model import ANSWER

KEPT = {"store": True}


@pytest.fixture
async def running(make_gateway: MakeGateway, parrot_model: Path) -> AsyncIterator[Running]:
    params = {"model": str(parrot_model), "threads": 1, "ctxSize": 4096}
    models = {"m": {"params": params, "parallel": 2, "personalities": {"p": "Be a poet."}}}
    async with make_gateway(
        models, llama_server="auto", responses=KEPT, cache={"min_tokens": 16}
    ) as running:
        yield running


async def ended(client: openai.AsyncOpenAI, id: str) -> Any:
    async with asyncio.timeout(30):
        while True:
            response = await client.responses.retrieve(id)
            if response.status not in ("queued", "in_progress"):
                return response
            await asyncio.sleep(0.01)


async def test_turns_go_on_with_each_other_and_compute_only_what_is_new(running: Running) -> None:
    async with running.openai() as client:
        first = await client.responses.create(
            model="m:p", input="hello " * 60, metadata={"about": "a test"}, instructions="Be kind."
        )
        assert first.id.startswith("resp_")
        assert first.output_text == ANSWER
        assert (first.metadata, first.instructions) == ({"about": "a test"}, "Be kind.")
        second = await client.responses.create(
            model="m:p", input="again", previous_response_id=first.id, instructions="Be kind."
        )
        assert second.previous_response_id == first.id
        assert second.usage is not None
        assert first.usage is not None
        assert second.usage.input_tokens > first.usage.input_tokens
        assert second.usage.input_tokens_details.cached_tokens > first.usage.input_tokens - 4
        third = await client.responses.create(
            model="m:p", input="more", previous_response_id=second.id, store=False
        )
        assert third.output_text == ANSWER
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(third.id)
        kept = await client.responses.retrieve(second.id)
        assert kept.to_dict() == second.to_dict()
        items = [item async for item in client.responses.input_items.list(second.id, order="asc")]
        assert [item.role for item in items if item.type == "message"] == [
            "user",
            "assistant",
            "user",
        ]
        page = await client.responses.input_items.list(second.id, limit=2)
        assert [item.id for item in page.data] == [items[2].id, items[1].id]
        assert page.has_more
        await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(first.id)
        with pytest.raises(openai.BadRequestError, match=f"{first.id}.*begins") as refused:
            await client.responses.create(model="m", input="x", previous_response_id=second.id)
        assert refused.value.code == "previous_response_not_found"


async def test_stream_is_read_again_behind_any_event(running: Running) -> None:
    async with running.openai() as client:
        async with client.responses.stream(model="m", input="hello") as stream:
            events = [event async for event in stream]
            final = await stream.get_final_response()
        assert final.output_text == ANSWER
        numbers = [event.sequence_number for event in events]
        for after in (-1, 3, numbers[-1]):
            seen = after if after >= 0 else openai.omit
            again = await client.responses.retrieve(final.id, stream=True, starting_after=seen)
            assert [event.sequence_number async for event in again] == numbers[after + 1 :]
        assert (await client.responses.retrieve(final.id)).output_text == ANSWER


async def test_background_goes_on_without_its_client(running: Running) -> None:
    async with running.openai() as client:
        begun = await client.responses.create(model="m", input="hello", background=True)
        assert (begun.status, begun.background) == ("queued", True)
        done = await ended(client, begun.id)
        assert (done.status, done.output_text) == ("completed", ANSWER)
        stream = await client.responses.create(
            model="m", input="hello", background=True, stream=True
        )
        seen = [await anext(stream) for _ in range(4)]
        await stream.close()
        assert seen[0].type == "response.created"
        id, last = seen[0].response.id, seen[-1].sequence_number
        assert (await ended(client, id)).status == "completed"
        rest = await client.responses.retrieve(id, stream=True, starting_after=last)
        events = [event async for event in rest]
        assert events[0].sequence_number == last + 1
        assert events[-1].type == "response.completed"
        assert events[-1].response.output_text == ANSWER
    await eventually(lambda: running.gateway.scheduler.in_flight == 0)


async def test_function_call_and_its_result_go_on(running: Running) -> None:
    tool: Any = {
        "type": "function",
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    async with running.openai() as client:
        asked = await client.responses.create(model="m", input="Cairo?", tools=[tool])
        (call,) = [item for item in asked.output if item.type == "function_call"]
        told = await client.responses.create(
            model="m",
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "40"}],
            previous_response_id=asked.id,
            tools=[tool],
        )
        assert told.output_text == "It is hot and dry."
