"""A server elsewhere whose streams go on as a test says, and who reads them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import aiohttp

from tests.dialects import ROUTES
from tests.harness import Running
from tests.remote_server import STREAM_END, STREAM_HEAD, Asked, RemoteServer, event

CHAT = "/v1/chat/completions"
#: The fast way in for small JSON, and aiohttp's server, where a query is for.
DOORS = ("", "?x=1")
RESUME = {"X-Stream-Resume": "true"}


class Told:
    """A server elsewhere whose streams go on when the test says so."""

    def __init__(self) -> None:
        self.server = RemoteServer()
        self.server.answers[CHAT] = self.stream
        self._words: asyncio.Queue[str | None] = asyncio.Queue()
        #: Set when the gateway has closed a stream that had not ended.
        self.left = asyncio.Event()
        #: Until it is set, nothing of an answer comes; and when a request has come.
        self.answers = asyncio.Event()
        self.answers.set()
        self.was_asked = asyncio.Event()

    def say(self, *words: str, ends: bool = False) -> None:
        for word in words:
            self._words.put_nowait(word)
        if ends:
            self._words.put_nowait(None)

    async def stream(self, asked: Asked) -> None:
        self.was_asked.set()
        await self.answers.wait()
        asked.writer.write(STREAM_HEAD)
        try:
            while (word := await self._next(asked)) is not None:
                asked.writer.write(event(word))
                await asked.writer.drain()
            asked.writer.write(STREAM_END)
        except ConnectionError:
            self.left.set()
            raise

    async def _next(self, asked: Asked) -> str | None:
        """The next word. Until it comes comments are sent, by which it is seen who has left."""
        while True:
            try:
                async with asyncio.timeout(0.02):
                    return await self._words.get()
            except TimeoutError:
                asked.writer.write(b"5\r\n: .\n\n\r\n")
                await asked.writer.drain()


def model(told: Told) -> dict[str, Any]:
    return {"m": {"url": told.server.url, "parallel": 4}}


def ask(running: Running, door: str = "", **options: Any) -> Any:
    body = {"model": "m", **ROUTES[CHAT], "stream": True}
    return running.request("POST", CHAT + door, json=body, **options)


async def one_event(response: aiohttp.ClientResponse) -> bytes:
    """The next event; without comments."""
    found = b""
    while not found.endswith(b"\n\n"):
        line = await response.content.readline()
        assert line, found
        if not line.startswith(b":") and (found or line != b"\n"):
            found += line
    return found


async def broken_off(response: aiohttp.ClientResponse) -> bytes:
    """What comes of a stream until it breaks off."""
    found = b""
    with contextlib.suppress(aiohttp.ClientPayloadError):
        async for piece in response.content.iter_any():
            found += piece
    return found


def words(events: bytes) -> list[tuple[str, str]]:
    """The numbers of events, and what they say."""
    found = []
    for one in events.decode().split("\n\n")[:-1]:
        if one.startswith(": .") and "data" not in one:
            continue
        fields = dict(
            line.split(": ", 1) for line in one.split("\n") if line and not line.startswith(":")
        )
        data = fields["data"]
        said = data
        if data != "[DONE]":
            parsed = json.loads(data)
            said = (
                parsed["error"]["code"]
                if "error" in parsed
                else parsed["choices"][0]["delta"]["content"]
            )
        found.append((fields.get("id", ""), said))
    return found


async def read(running: Running, id: str, after: int | None = None, **options: Any) -> bytes:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with running.request("GET", f"/v1/streams/{id}", headers=headers, **options) as response:
        said = await broken_off(response)
        assert response.status == 200, said
        assert response.content_type == "text/event-stream"
        return said
