"""The APIs whose streams have heartbeats, and scripted servers and clients for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from tests.harness import MakeGateway, Running
from tests.remote_server import Asked, RemoteServer

#: Seconds. A look every 45 ms.
BEAT = 0.1
LIMITS = {"heartbeat": f"{BEAT}s"}
MESSAGES = [{"role": "user", "content": "hi"}]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def named(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


@dataclass
class Api:
    """One API, its own way to begin, and to go on, and what keeps its streams alive."""

    path: str
    body: dict[str, Any]
    first: bytes
    second: bytes
    last: bytes
    beat: re.Pattern[bytes]
    error: str = ""


WORKING = rb": working, \d+ s\n"
IN_PROGRESS = rb"event: response\.in_progress\ndata: \{[^\n]*\}\n\n"
DELTA = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
OPENING = {"response": {"id": "theirs", "object": "response", "status": "in_progress"}}
APIS = {
    "chat": Api(
        "/v1/chat/completions",
        {"messages": MESSAGES},
        DELTA,
        DELTA.replace(b'"a"', b'"b"'),
        b"data: [DONE]\n\n",
        re.compile(WORKING),
    ),
    "completions": Api(
        "/v1/completions",
        {"prompt": "hi"},
        b'data: {"choices":[{"text":"a"}]}\n\n',
        b'data: {"choices":[{"text":"b"}]}\n\n',
        b"data: [DONE]\n\n",
        re.compile(WORKING),
    ),
    "responses": Api(
        "/v1/responses",
        {"input": "hi"},
        named("response.created", **OPENING) + named("response.in_progress", **OPENING),
        named("response.output_text.delta", item_id="i", delta="b"),
        named("response.completed", response={"id": "theirs", "status": "completed"}),
        re.compile(WORKING + rb"(event: response\.created\ndata: [^\n]*\n\n)?" + IN_PROGRESS),
        "error",
    ),
    "anthropic": Api(
        "/v1/messages",
        {"messages": MESSAGES, "max_tokens": 9},
        named("message_start", message={"usage": {"input_tokens": 3}}),
        named("content_block_delta", delta={"type": "text_delta", "text": "b"}),
        named("message_stop"),
        re.compile(WORKING + rb'event: ping\ndata: \{"type": "ping"\}\n\n'),
        "error",
    ),
}
EVERY_API = pytest.mark.parametrize("api", APIS.values(), ids=APIS)
#: The front door, and aiohttp's.
BOTH_DOORS = pytest.mark.parametrize("query", ["", "?x=1"], ids=["front", "aiohttp"])


@dataclass
class Script:
    """A server elsewhere that writes what the test puts into its queue."""

    server: RemoteServer
    pieces: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    async def play(self, asked: Asked) -> None:
        while (piece := await self.pieces.get()) is not None:
            asked.writer.write(piece)
            await asked.writer.drain()
        raise ConnectionAbortedError

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.pieces.put_nowait(piece)

    def die(self) -> None:
        self.pieces.put_nowait(None)


@dataclass
class Reading:
    """The answer to a streaming request as it comes."""

    response: aiohttp.ClientResponse
    got: bytes = b""
    clean: bool | None = None

    async def more(self) -> bytes:
        """What there is as soon as anything has come since."""
        before = len(self.got)
        return await self.until(lambda got: len(got) > before)

    async def until(self, condition: Callable[[bytes], Any]) -> bytes:
        async with asyncio.timeout(20):
            while not condition(self.got):
                data = await self.response.content.readany()
                assert data, self.got
                self.got += data
        return self.got

    async def beats(self, api: Api, count: int) -> bytes:
        return await self.until(lambda got: len(api.beat.findall(got)) >= count)

    async def rest(self) -> bytes:
        """All of it; whether its HTTP ended as it should is ``clean``."""
        self.clean = False
        with contextlib.suppress(aiohttp.ClientPayloadError):
            while data := await self.response.content.readany():
                self.got += data
            self.clean = True
        return self.got


@contextlib.asynccontextmanager
async def asking(
    running: Running, api: Api, query: str = "", **more: Any
) -> AsyncIterator[Reading]:
    body = {"model": "m", "stream": True, **api.body}
    async with running.request("POST", api.path + query, json=body, **more) as response:
        yield Reading(response)


@contextlib.asynccontextmanager
async def gateway(make: MakeGateway, script: Script, **settings: Any) -> AsyncIterator[Running]:
    """One whose model ``m`` is ready, and answers as ``script`` says."""
    async with make({"m": {"url": script.server.url}}, **{"limits": LIMITS, **settings}) as running:
        await running.gateway.scheduler.load("m")
        yield running


def without_beats(api: Api, stream: bytes) -> bytes:
    return api.beat.sub(b"", stream)


FORBIDDEN = b'{"error": {"code": 400, "message": "too long a prompt", "type": "invalid"}}'
