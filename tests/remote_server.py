"""A remote server, in the test's own loop: it notes its requests and answers as told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from multidict import CIMultiDict


@dataclass
class Asked:
    """One request. ``writer`` is for those who answer it byte by byte."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes
    writer: asyncio.StreamWriter

    @property
    def json(self) -> Any:
        return json.loads(self.body)


#: A status and a body, with headers perhaps; or who writes the answer.
Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]] | Callable[[Asked], Awaitable[None]]

CHAT = {
    "object": "chat.completion",
    "model": "its-own-name",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "from elsewhere"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
LIST = {"object": "list", "data": [{"id": "there", "object": "model", "max_model_len": 4096}]}
#: Answers to looks at its health after which no connection is left to be used again, on which a
#: request may be sent twice.
CLOSING: dict[str, Any] = {
    "/v1/models": (200, LIST, {"Connection": "close"}),
    "/health": (404, {}, {"Connection": "close"}),
}
HEALTH = ("/v1/models", "/health")


class RemoteServer:
    """Answers on a port of 127.0.0.1: paths in ``answers`` as they say, others with 404."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Answer] = {
            "/v1/models": (200, LIST),
            "/v1/chat/completions": (200, CHAT),
        }
        self.every: list[Asked] = []
        self.connections = 0
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    async def __aenter__(self) -> RemoteServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[Asked]:
        """All but the looks at its health."""
        return [one for one in self.every if one.target not in HEALTH]

    async def start(self) -> None:
        """Listen; on the same port as before, if there was one."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=self._listener, ssl=self._tls)

    async def stop(self) -> None:
        """Refuse connections, and break those that there are."""
        if self._server is not None:
            # Nobody listens from here on, also where a process that is being started (by the
            # gateway, in a thread) has a copy of the socket, until it becomes its program.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._server.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self._server.wait_closed()
            self._server = None

    async def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        """Wait until ``condition`` holds, looking at every request."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                while asked := await self._read(reader, writer):
                    self.every.append(asked)
                    self._news.set()
                    await self._answer(asked)
        except asyncio.CancelledError:
            pass  # stopped
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    @staticmethod
    async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked | None:
        line = (await reader.readline()).decode("latin-1")
        if not line.endswith("HTTP/1.1\r\n"):
            if line:  # a TLS handshake, as servers answer it
                writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                await writer.drain()
                await asyncio.wait_for(reader.read(), 5)
            return None
        method, target, _ = line.split()
        headers: CIMultiDict[str] = CIMultiDict()
        while (field := (await reader.readline()).decode().rstrip("\r\n")) != "":
            name, _, value = field.partition(":")
            headers.add(name, value.strip())
        body = b""
        if headers.get("Transfer-Encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        elif length := int(headers.get("Content-Length", "0")):
            body = await reader.readexactly(length)
        return Asked(method, target, headers, body, writer)

    async def _answer(self, asked: Asked) -> None:
        answer = self.answers.get(asked.target.partition("?")[0], (404, {"detail": "Not Found"}))
        if callable(answer):
            await answer(asked)
            return
        status, body, *more = answer
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = {"Content-Type": "application/json", **(more[0] if more else {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        asked.writer.write(
            f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(data)}\r\n\r\n".encode() + data
        )
        await asked.writer.drain()


def event(text: str) -> bytes:
    """One chunk of a streamed chat completion, as an HTTP chunk."""
    delta = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}}]}
    delta["choices"][0]["delta"] = {"content": text}  # type: ignore[index]
    data = b"data: " + json.dumps(delta).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
STREAM_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


async def hold(asked: Asked) -> None:
    """Never answer; until the test or the client ends it."""
    await asyncio.Event().wait()


async def hang_up(asked: Asked) -> None:
    """Close the connection instead of an answer."""
    asked.writer.transport.abort()
    await asyncio.sleep(0)
    raise ConnectionAbortedError
