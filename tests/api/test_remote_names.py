"""A model elsewhere is called by our name in every answer, whatever its server calls it."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from gateway.backends.command import bundled_program
from tests.harness import MakeGateway, Running, tied
from tests.parrot_model import ANSWER
from tests.remote_server import STREAM_HEAD, Asked, RemoteServer
from tests.scripted import until

THERE = '/srv/models/A "b"/\u00e4.gguf'
USER = {"role": "user", "content": "hi"}
FIELDS = {"messages": [USER], "prompt": "x", "input": "x", "query": "q", "documents": ["d"]}
#: A tool's input has a model of its own, and so has what a client notes for itself.
INSIDE = {"model": THERE, "deep": [{"model": "other"}]}
WHOLE: dict[str, Any] = {
    "/v1/chat/completions": {
        "model": THERE,
        "choices": [{"message": {"role": "assistant", "content": '"model":"x"', "x": INSIDE}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    },
    "/v1/completions": {"choices": [{"text": "x"}], "model": THERE},
    "/v1/responses": {"metadata": INSIDE, "model": THERE, "output": []},
    "/v1/messages": {"content": [{"type": "tool_use", "input": INSIDE}], "model": THERE},
    "/v1/embeddings": {"data": [{"embedding": [0.1234567890123456789, 1]}], "model": THERE},
    "/v1/rerank": {"results": [INSIDE], "model": THERE},
}


@pytest.fixture
async def server() -> AsyncIterator[RemoteServer]:
    async with RemoteServer() as server:
        yield server


@pytest.fixture
async def running(make_gateway: MakeGateway, server: RemoteServer) -> AsyncIterator[Running]:
    models = {"m": {"url": server.url, "aliases": "alias", "personalities": {"p": "Arr."}}}
    async with make_gateway(models) as running:
        yield running


@pytest.mark.parametrize("name", ["m", "alias", "m:p"])
async def test_complete_answer_names_the_model_as_here(
    running: Running, server: RemoteServer, name: str, subtests: pytest.Subtests
) -> None:
    server.answers["/apply-template"] = (200, {"prompt": "x"})
    for path, said in WHOLE.items():
        with subtests.test(f"{path!r:.80}"):
            server.answers[path] = (200, said)
            status, answer = await running.json("POST", path, json={"model": name, **FIELDS})
            assert status == 200, path
            answer.pop("responses", None)
            assert answer == {**said, "model": "m"}, path
            assert list(answer) == list(said)


async def test_what_is_packed_unasked_stays_as_it_is(
    running: Running, server: RemoteServer, subtests: pytest.Subtests
) -> None:
    said = {"tokens": [1], "input_tokens": 1, "model": THERE}
    packed = gzip.compress(json.dumps(said).encode(), 0)  # in which the name can be read
    for path in ("/v1/chat/completions", "/v1/chat/completions/input_tokens", "/tokenize"):
        with subtests.test(f"{path!r:.80}"):
            server.answers[path] = (200, packed, {"Content-Encoding": "gzip"})
            body = {"model": "m", "content": "x", **FIELDS}
            assert await running.json("POST", path, json=body) == (200, said)


async def test_long_answer_names_the_model_as_here(running: Running, server: RemoteServer) -> None:
    """Those that aren't kept, but go on as they come."""
    vectors = [{"embedding": [random.random() for _ in range(100)]} for _ in range(300)]
    for path, part in (("/v1/embeddings", vectors), ("/v1/messages", [INSIDE] * 10_000)):
        said = {"data": part, "model": THERE, "more": INSIDE}
        assert len(json.dumps(said)) > 300_000
        server.answers[path] = (200, said)
        status, answer = await running.json("POST", path, json={"model": "m", **FIELDS})
        assert (status, answer) == (200, {**said, "model": "m"})
    server.answers["/v1/responses"] = (200, said)  # one that knows no streams
    body = {"model": "m", "input": "x", "stream": True}
    assert await running.json("POST", "/v1/responses", json=body) == (200, {**said, "model": "m"})


def chat_events(count: int) -> list[bytes]:
    events = []
    for number in range(count):
        choice = {"index": 0, "delta": {"content": f'w{number:05} "model":"no" '}}
        event = {"id": "1", "object": "x", "model": THERE, "choices": [choice]}
        events.append(b"data: " + json.dumps(event).encode() + b"\n\n")
    usage = {"prompt_tokens": 3, "completion_tokens": count}
    last = {"model": THERE, "choices": [], "usage": usage}
    return [*events, b"data: " + json.dumps(last).encode() + b"\n\n", b"data: [DONE]\n\n"]


def cut(events: list[bytes], way: str) -> list[bytes]:
    """The same as pieces: an event in each, several, or parts of them."""
    if way == "whole":
        return events
    sent = b"".join(events)
    if way == "crlf":
        sent = sent.replace(b"\n", b"\r\n")
    if way == "without an end":
        sent = sent.rstrip(b"\n")
    sizes = random.Random(way)
    pieces = []
    while sent:
        size = sizes.choice((1, 7, 60, 250, 251, 500, 3000))
        pieces.append(sent[:size])
        sent = sent[size:]
    return pieces


def sending(pieces: list[bytes]) -> Any:
    async def send(asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD)
        for piece in pieces:
            asked.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asked.writer.drain()
            await asyncio.sleep(0)  # a read for each, mostly
        asked.writer.write(b"0\r\n\r\n")

    return send


@pytest.mark.parametrize("way", ["whole", "cut", "crlf", "without an end"])
async def test_the_name_in_streams_is_ours(
    running: Running, server: RemoteServer, way: str
) -> None:
    count = 200
    server.answers["/v1/chat/completions"] = sending(cut(chat_events(count), way))
    body = {"model": "m", "messages": [USER], "stream": True}
    async with running.request("POST", "/v1/chat/completions", json=body) as response:
        lines = (await response.text()).replace("\r\n", "\n").split("\n\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert {event["model"] for event in events} == {"m"}
    text = [event["choices"][0]["delta"]["content"] for event in events[:-1]]
    assert text == [f'w{number:05} "model":"no" ' for number in range(count)]
    assert lines[count + 1].strip() == "data: [DONE]"
    scheduler = running.gateway.scheduler
    await until(scheduler, lambda: scheduler.in_flight == 0)
    _, answer = await running.json("GET", "/admin/usage")
    assert [day["completion_tokens"] for day in answer["usage"]] == [count]


@pytest.mark.parametrize("at", [30, 300, 5000, 5131])
async def test_broken_stream_ends_with_a_whole_event(
    running: Running, server: RemoteServer, at: int
) -> None:
    """What is kept back of a line is nothing that the last event could go on with."""
    sent = b"".join(chat_events(50))[:at]

    async def broken(asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD + b"%x\r\n%b\r\n" % (len(sent), sent))
        await asked.writer.drain()
        asked.writer.transport.abort()
        raise ConnectionAbortedError

    server.answers["/v1/chat/completions"] = broken
    names = []
    async with running.openai() as client:
        messages: Any = [USER]
        stream = await client.chat.completions.create(model="m", messages=messages, stream=True)

        async def read() -> None:
            async for chunk in stream:
                names.append(chunk.model)

        with pytest.raises(openai.APIError, match="went away in the middle"):
            await read()
    assert names == ["m"] * sent.count(b"\n\n")


async def test_streamed_responses_name_the_model_as_here(
    running: Running, server: RemoteServer
) -> None:
    response = {"id": "resp_1", "model": THERE, "metadata": INSIDE, "output": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**response, "model": THERE}},
        {"type": "response.output_text.delta", "item_id": "i", "delta": "x"},
        {"type": "response.completed", "response": {**response, "usage": {"input_tokens": 1}}},
    ]
    for end in ("\n", "\r\n"):
        lines = [f"event: {e['type']}{end}data: {json.dumps(e)}{end}{end}" for e in events]
        server.answers["/v1/responses"] = sending([line.encode() for line in lines])
        body = {"model": "m", "input": "x", "stream": True}
        async with running.request("POST", "/v1/responses", json=body) as answer:
            text = (await answer.text()).replace("\r\n", "\n")
        found = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        said = [event["response"] for event in found if "response" in event]
        assert [one["model"] for one in said] == ["m", "m"]
        assert [one["metadata"] for one in said] == [INSIDE, INSIDE]


async def test_answer_below_upstream_keeps_its_own_name(
    running: Running, server: RemoteServer
) -> None:
    """/upstream is the server's own answer; one that is packed isn't read."""
    said = (200, {"model": THERE})
    server.answers["/raw"] = said
    assert await running.json("GET", "/upstream/m/raw") == said
    assert await running.json("POST", "/upstream/m/raw", json={}) == said


# --- a real llama-server -------------------------------------------------------------------


@pytest.fixture
def llama_server(tmp_path: Path, parrot_model: Path) -> Iterator[str]:
    """The bundled one, on a port, which calls its model by the path of its file."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    flags = ["--model", str(parrot_model), "--port", str(port), "--ctx-size", "2048"]
    process = subprocess.Popen(
        tied(*bundled_program(), *flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


async def test_answers_of_a_real_llama_server_name_the_model_as_here(
    make_gateway: MakeGateway, llama_server: str
) -> None:
    async with make_gateway({"m": {"url": llama_server}}) as running:
        async with asyncio.timeout(60):
            while (await running.json("POST", "/loadModel", json={"model": "m"}))[0] != 200:
                await asyncio.sleep(0.05)  # it is still starting
        messages: list[Any] = [USER]
        async with running.openai() as client:
            whole = await client.chat.completions.create(model="m", messages=messages)
            assert (whole.model, whole.choices[0].message.content) == ("m", ANSWER)
            chunks = [
                chunk
                async for chunk in await client.chat.completions.create(
                    model="m", messages=messages, stream=True
                )
            ]
            assert {chunk.model for chunk in chunks} == {"m"}
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert text == ANSWER
            response = await client.responses.create(model="m", input="hi")
            assert (response.model, response.output_text) == ("m", ANSWER)
            async with client.responses.stream(model="m", input="hi") as stream:
                async for _ in stream:
                    pass
                final = await stream.get_final_response()
            assert (final.model, final.output_text) == ("m", ANSWER)
            completion = await client.completions.create(model="m", prompt="hi", max_tokens=3)
            assert completion.model == "m"
        async with anthropic.AsyncAnthropic(base_url=running.url, api_key=running.key) as claude:
            message = await claude.messages.create(model="m", messages=messages, max_tokens=99)
            assert message.model == "m"
            async with claude.messages.stream(
                model="m", messages=messages, max_tokens=99
            ) as events:
                final_message = await events.get_final_message()
            assert final_message.model == "m"
