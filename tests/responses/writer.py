"""A server elsewhere that writes responses as a test says, and a gateway that keeps them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from typing import Any

import aiohttp

from tests.harness import Running, eventually
from tests.remote_server import STREAM_HEAD, Asked, RemoteServer

PATH = "/v1/responses"
KEPT = {"store": True}


class Writer:
    """A server elsewhere: it writes a word of a response whenever the test says so."""

    def __init__(self) -> None:
        self.server = RemoteServer()
        self.server.answers[PATH] = self.answer
        self._words: asyncio.Queue[str | None] = asyncio.Queue()
        #: Set when the gateway has closed an answer that had not ended.
        self.left = asyncio.Event()

    def say(self, *words: str, ends: bool = False) -> None:
        for word in words:
            self._words.put_nowait(word)
        if ends:
            self._words.put_nowait(None)

    def be_silent(self) -> None:
        """Forget what nobody has asked for."""
        while not self._words.empty():
            self._words.get_nowait()

    @property
    def asked(self) -> list[Any]:
        return [one.json for one in self.server.asked]

    async def answer(self, asked: Asked) -> None:
        if asked.json.get("stream"):
            await self._stream(asked)
        else:
            text = ""
            while (word := await self._next(asked, b"")) is not None:
                text += word
            body = json.dumps(_response(text)).encode()
            head = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            )
            asked.writer.write(head % len(body) + body)

    async def _stream(self, asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD + _event("response.created", response=_response("")))
        text = ""
        while (word := await self._next(asked, b"5\r\n: .\n\n\r\n")) is not None:
            text += word
            delta = {"item_id": "msg_1", "delta": word}
            asked.writer.write(_event("response.output_text.delta", **delta))
        response = {**_response(text), "status": "completed"}
        asked.writer.write(_event("response.completed", response=response) + b"0\r\n\r\n")

    async def _next(self, asked: Asked, sign_of_life: bytes) -> str | None:
        """The next word. Meanwhile it is seen who has left."""
        while True:
            try:
                async with asyncio.timeout(0.02):
                    return await self._words.get()
            except TimeoutError:
                if asked.writer.transport.is_closing():
                    self.left.set()
                    raise ConnectionError from None
                asked.writer.write(sign_of_life)
                try:
                    await asked.writer.drain()
                except ConnectionError:
                    self.left.set()
                    raise


def _response(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}
    return {
        "id": "resp_of_the_server",
        "object": "response",
        "created_at": 1,
        "status": "completed" if text else "in_progress",
        "model": "there",
        "output": [item] if text else [],
        "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
    }


def _event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields})
    said = f"event: {kind}\ndata: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(said), said)


def models(writer: Writer) -> dict[str, Any]:
    return {"m": {"url": writer.server.url, "parallel": 4}}


async def create(running: Running, text: str = "hi", door: str = "", **fields: Any) -> Any:
    key = fields.pop("key", running.key)
    said = {"model": "m", "input": text, **fields}
    status, response = await running.json("POST", PATH + door, json=said, key=key)
    assert status == 200, response
    return response


async def ended(running: Running, id: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            _, response = await running.json("GET", f"{PATH}/{id}")
            if response["status"] not in ("queued", "in_progress"):
                return response
            await asyncio.sleep(0.01)


async def written(running: Running, id: str) -> None:
    """Return when it is in the database."""
    file = running.gateway.settings.data_dir / "gateway.db"

    def there() -> bool:
        with sqlite3.connect(file) as database:
            row = database.execute(
                "SELECT 1 FROM responses WHERE id = ? AND running IS NULL", (id,)
            ).fetchone()
        return row is not None

    await eventually(there)


async def id_in(response: aiohttp.ClientResponse) -> str:
    while not (line := await response.content.readline()).startswith(b"data: "):
        assert line
    found: str = json.loads(line[6:])["response"]["id"]
    return found
