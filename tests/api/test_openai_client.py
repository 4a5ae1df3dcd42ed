"""OpenAI's own Python client, asynchronous: its helpers, its retries, its timeouts.

The synchronous one asks the demo model, in tests/test_demo.py and test_clients.py; that it tries
again is seen here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel
from yarl import URL

from gateway.tasks import spawn
from tests.harness import FAKE, MakeGateway, Running, fake_model
from tests.parrot_model import ANSWER, CITY, REPORT, THOUGHT, TOOL
from tests.scripted import until

RECORDER = str(FAKE.with_name("recording_llama_server.py"))
HELLO: list[Any] = [{"role": "user", "content": "hi"}]


# --- what it makes of answers ----------------------------------------------------------------


@pytest.fixture
async def client(
    make_gateway: MakeGateway, parrot_model: Path
) -> AsyncIterator[openai.AsyncOpenAI]:
    model = {
        "params": {"model": str(parrot_model), "ctxSize": 2048, "threads": 1},
        "personalities": {"pirate": "Arr."},
        "aliases": ["gpt-4o"],
    }
    async with (
        make_gateway({"m": model}, llama_server="auto") as running,
        running.openai() as client,
    ):
        yield client


async def test_a_chat_is_parsed_by_openais_client(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert answer.model == "m"
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.responses == ANSWER  # type: ignore[attr-defined]
    raw = await client.chat.completions.with_raw_response.create(model="m:pirate", messages=HELLO)
    assert raw.headers["X-Gateway-Model"] == "m"
    assert raw.headers["X-Request-Id"]
    completion = await client.completions.create(model="m", prompt="x")
    assert completion.choices[0].text == ANSWER
    models = [model.id async for model in client.models.list()]
    assert models == ["m", "m:pirate"]
    assert (await client.models.retrieve("m:pirate")).id == "m:pirate"


async def test_openai_stream_helper_puts_chunks_together(client: openai.AsyncOpenAI) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}}
    async with client.chat.completions.stream(model="m", messages=HELLO, **options) as stream:
        pieces = [event.delta async for event in stream if event.type == "content.delta"]
        final = await stream.get_final_completion()
    assert len(pieces) > 3
    assert "".join(pieces) == final.choices[0].message.content == ANSWER
    assert final.usage is not None
    assert final.usage.completion_tokens == 6


async def test_a_tool_is_called_and_answers(client: openai.AsyncOpenAI) -> None:
    tools: list[Any] = [TOOL]
    async with client.chat.completions.stream(model="m", messages=HELLO, tools=tools) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    message = final.choices[0].message
    assert message.tool_calls
    assert json.loads(message.tool_calls[0].function.arguments) == CITY
    told: Any = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "40 degrees"}
    said: Any = message.to_dict()
    answer = await client.chat.completions.create(
        model="m", messages=[*HELLO, said, told], tools=tools
    )
    assert answer.choices[0].message.content == REPORT


async def test_openai_client_parses_an_answer_into_a_class(client: openai.AsyncOpenAI) -> None:
    class Place(BaseModel):
        city: Literal["Cairo", "Rome"]

    # It would say something else, so that by chance it may find no way to what the grammar wants.
    parsed = await client.chat.completions.parse(
        model="m", messages=HELLO, response_format=Place, max_tokens=40, temperature=0
    )
    place = parsed.choices[0].message.parsed
    assert place is not None
    assert place.city in ("Cairo", "Rome")


async def test_a_response_is_parsed_by_openais_client(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="m", input="hi", instructions="Be brief.")
    assert answer.output_text == ANSWER
    thoughtful = {"chat_template_kwargs": {"think": True}}
    async with client.responses.stream(model="m", input="hi", extra_body=thoughtful) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert events[0].type == "response.created"
    assert events[0].response.model == "m"
    assert events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = {"reasoning": "", "output": ""}
    for event in events:
        if event.type in ("response.reasoning_text.delta", "response.output_text.delta"):
            deltas[event.type[9:].partition("_")[0]] += event.delta
    assert deltas == {"reasoning": THOUGHT, "output": ANSWER}
    assert final.output_text == ANSWER
    function: Any = {"type": "function", **TOOL["function"]}
    async with client.responses.stream(model="m", input="hi", tools=[function]) as stream:
        called = await stream.get_final_response()
    (call,) = [item for item in called.output if item.type == "function_call"]
    assert json.loads(call.arguments) == CITY
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "40 degrees"}
    items: Any = [*HELLO, *(item.to_dict() for item in called.output), result]
    assert (await client.responses.create(model="m", input=items)).output_text == REPORT


# --- retries and timeouts --------------------------------------------------------------------


class Waits:
    """The pauses that OpenAI's client wants to make, and its way to make them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: list[float] = []
        self.begun = asyncio.Event()
        self.over = asyncio.Event()
        monkeypatch.setattr("openai._base_client.anyio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.begun.set()
        await self.over.wait()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


@contextlib.asynccontextmanager
async def occupied(make_gateway: MakeGateway, tmp_path: Path, **settings: Any) -> Any:
    """A gateway whose only slot is taken by an answer, until the yielded function is called."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    models = {"m": fake_model(tmp_path, chunks=2, gate=gate)}
    async with make_gateway(models, **settings) as running, running.openai() as client:
        await running.gateway.scheduler.load("m")
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
        chunks = aiter(stream)
        await anext(chunks)

        async def finish() -> None:
            await asyncio.to_thread(gate.write_bytes, b"")
            assert [chunk async for chunk in chunks]
            await until(running.gateway.scheduler, lambda: not running.gateway.scheduler.in_flight)

        yield running, finish


async def test_503_is_asked_again_when_it_says(
    make_gateway: MakeGateway, tmp_path: Path, waits: Waits
) -> None:
    settings = {"limits": {"queue_size": 0}}
    async with occupied(make_gateway, tmp_path, **settings) as (running, finish):
        async with running.openai() as impatient:
            with pytest.raises(openai.InternalServerError, match="waiting already") as caught:
                await impatient.chat.completions.create(model="m", messages=HELLO)
            assert caught.value.response.headers["Retry-After"] == "5"
        async with asyncio.timeout(20), running.openai(max_retries=1) as client:
            asked = asyncio.ensure_future(  # noqa: TID251 - a client's task
                client.chat.completions.create(model="m", messages=HELLO)
            )
            await waits.begun.wait()
            await finish()
            waits.over.set()
            assert (await asked).choices[0].message.content
    assert waits.seconds == [5]


def client_of(running: Running, **options: Any) -> openai.OpenAI:
    """A synchronous one; ``max_retries=0`` unless told otherwise."""
    options = {"max_retries": 0, **options}
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, **options)


async def test_the_synchronous_client_asks_again_too(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    seconds: list[float] = []
    begun, over = asyncio.Event(), threading.Event()

    def sleep(duration: float) -> None:
        seconds.append(duration)
        loop.call_soon_threadsafe(begun.set)
        over.wait(20)

    monkeypatch.setattr(
        "openai._base_client.time", types.SimpleNamespace(sleep=sleep, time=time.time)
    )
    async with occupied(make_gateway, tmp_path, limits={"queue_size": 0}) as (running, finish):
        with client_of(running, max_retries=1) as client:
            create = client.chat.completions.create
            asked = spawn(asyncio.to_thread(create, model="m", messages=HELLO), name="a client")
            await begun.wait()
            await finish()
            over.set()
            assert (await asked).choices[0].message.content
    assert seconds == [5]


async def test_429_is_asked_again_when_it_says(
    make_gateway: MakeGateway, tmp_path: Path, waits: Waits
) -> None:
    async with occupied(make_gateway, tmp_path) as (running, finish):
        ring, scheduler = running.gateway.ring, running.gateway.scheduler
        _, key = await ring.create("one", limits={"concurrency": 1})
        async with (
            asyncio.timeout(20),
            running.openai() as first,
            running.openai(max_retries=1) as second,
        ):
            first.api_key = second.api_key = key
            asked = []
            for client in (first, second):
                create = client.chat.completions.create(model="m", messages=HELLO)
                asked.append(asyncio.ensure_future(create))  # noqa: TID251 - a client's task
                # The first has the key's one place before the second comes.
                await until(scheduler, lambda: scheduler.status()[0].queued == 1)
            await waits.begun.wait()
            await finish()
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            waits.over.set()
            for answer in asked:
                assert (await answer).choices[0].message.content
    assert waits.seconds == [1]


async def test_what_cannot_succeed_is_asked_once(
    make_gateway: MakeGateway, tmp_path: Path, waits: Waits
) -> None:
    models = {"broken": fake_model(tmp_path, exit=3)}
    async with make_gateway(models) as running, running.openai(max_retries=2) as client:
        with pytest.raises(openai.InternalServerError, match="broken"):
            await client.chat.completions.create(model="broken", messages=HELLO)
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="none", messages=HELLO)
        client.api_key = "wrong"
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="broken", messages=HELLO)
        assert running.gateway.scheduler.status()[0].starts == 1
    assert not waits.seconds


async def test_its_timeout_ends_the_request(make_gateway: MakeGateway, tmp_path: Path) -> None:
    models = {"m": fake_model(tmp_path, hang=1)}
    async with make_gateway(models) as running, running.openai(timeout=0.5) as client:
        scheduler = running.gateway.scheduler
        await scheduler.load("m")
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model="m", messages=HELLO)
        await until(scheduler, lambda: not scheduler.in_flight)
        with client_of(running, timeout=0.5) as synchronous:
            create = synchronous.chat.completions.create
            with pytest.raises(openai.APITimeoutError):
                await asyncio.to_thread(create, model="m", messages=HELLO)
        await until(scheduler, lambda: not scheduler.in_flight)


async def test_a_stream_that_breaks_is_an_error(make_gateway: MakeGateway, tmp_path: Path) -> None:
    models = {"dying": fake_model(tmp_path, chunks=9, die_after=3)}
    async with make_gateway(models) as running, running.openai() as client:
        stream = await client.chat.completions.create(model="dying", messages=HELLO, stream=True)
        chunks = aiter(stream)
        assert (await anext(chunks)).choices
        with pytest.raises(openai.APIError):
            assert [chunk async for chunk in chunks]


async def test_a_stream_of_responses_that_breaks_is_an_error(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"m": fake_model(tmp_path, **{"break": 9})}
    async with make_gateway(models, llama_server=RECORDER) as running, running.openai() as client:
        stream = await client.responses.create(model="m", input="hi", stream=True)
        events = aiter(stream)
        assert (await anext(events)).type == "response.output_text.delta"
        with pytest.raises(openai.APIError, match="m") as caught:
            assert [event async for event in events]
        assert caught.value.code == "backend_error"
        # And for clients that read the event itself, as the reference has it.
        body = b'{"model": "m", "input": "hi", "stream": true}'
        url = URL(running.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(
            b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (running.key.encode(), len(body), body)
        )
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    *_, name, raw, failed, response, chunk = [x for x in answer.split(b"\n") if x.strip()]
    assert chunk == b"0\r"  # the response has failed, its HTTP has not
    assert (name, failed) == (b"event: error", b"event: response.failed")
    assert json.loads(response.removeprefix(b"data: "))["response"]["status"] == "failed"
    said = json.loads(raw.removeprefix(b"data: "))
    assert (said["type"], said["sequence_number"]) == ("error", 1)
    fields = ("code", "message", "param")
    assert [said[field] for field in fields] == [said["error"][field] for field in fields]
