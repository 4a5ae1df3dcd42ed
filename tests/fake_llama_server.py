#!/usr/bin/env python3
"""A llama-server that misbehaves on demand, for faults the real one won't produce.

Takes llama-server's arguments, serves a few of its routes on the Unix socket in ``--host``, and
is told by environment variables (a model's ``env`` in models.json) what to do wrong:

FAKE_EXIT=N              exit at once with status N, after a line on stderr
FAKE_START_DELAY=S       /health answers 503 for S seconds
FAKE_NEVER_HEALTHY=1     /health answers 503 for ever
FAKE_IGNORE_TERM=1       SIGTERM does nothing
FAKE_HANG=1              chat requests are accepted and never answered
FAKE_DIE_ONCE=FILE       the first chat request kills it (FILE remembers that it happened)
FAKE_DIE_AFTER=N         it dies after N streamed chunks
FAKE_GARBAGE=1           chat requests are answered with something that is not HTTP
FAKE_GRANDCHILD=FILE     starts a child of its own, its pid in FILE
FAKE_CHUNKS=N, FAKE_PAUSE=S   a streamed answer has N chunks, S seconds apart
FAKE_RECORD=FILE         every request body is appended to FILE, one JSON a line
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

env = os.environ.get


def option(name: str, default: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def response(status: str, body: object) -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: *\r\n"
    head += f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(**delta: object) -> bytes:
    body = {"object": "chat.completion.chunk", "choices": [{"index": 0, **delta}]}
    return chunk(b"data: " + json.dumps(body).encode() + b"\n\n")


class Server:
    def __init__(self) -> None:
        self.healthy_at = asyncio.get_running_loop().time() + float(env("FAKE_START_DELAY", "0"))
        self.alias = option("--alias", "fake")
        self.running = 0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *fields = head.split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (f.partition(":") for f in fields)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path = line.split(" ")[1]
        if path == "/health":
            ready = asyncio.get_running_loop().time() >= self.healthy_at
            if env("FAKE_NEVER_HEALTHY") or not ready:
                writer.write(response("503 Service Unavailable", {"error": {"code": 503}}))
            else:
                writer.write(response("200 OK", {"status": "ok"}))
        elif path == "/slots":
            writer.write(response("200 OK", [{"is_processing": bool(self.running)}]))
        elif path.endswith("/chat/completions"):
            self.running += 1
            try:
                await self.chat(json.loads(body), writer)
            finally:
                self.running -= 1
        else:
            writer.write(response("404 Not Found", {"error": {"message": "File Not Found"}}))
        await writer.drain()
        return True

    async def chat(self, body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        if record := env("FAKE_RECORD"):
            with Path(record).open("a") as file:
                file.write(json.dumps(body) + "\n")
        if (marker := env("FAKE_DIE_ONCE")) and not Path(marker).exists():
            Path(marker).touch()
            die()
        if env("FAKE_HANG"):
            await asyncio.Event().wait()
        if env("FAKE_GARBAGE"):
            writer.write(b"this is not HTTP\r\n\r\n")
            return
        if not body.get("stream"):
            message = {"role": "assistant", "content": "fake answer"}
            usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            answer = {"choices": [{"index": 0, "message": message}], "usage": usage}
            writer.write(response("200 OK", {**answer, "model": self.alias}))
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(int(env("FAKE_CHUNKS", "5"))):
            if number == int(env("FAKE_DIE_AFTER", "-1")):
                await writer.drain()
                die()
            writer.write(event(delta={"content": f"word{number} "}))
            await writer.drain()
            await asyncio.sleep(float(env("FAKE_PAUSE", "0")))
        writer.write(event(delta={}, finish_reason="stop"))
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


async def main() -> None:
    if status := env("FAKE_EXIT"):
        print("error: this fake does not want to start", file=sys.stderr)
        sys.exit(int(status))
    if env("FAKE_IGNORE_TERM"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if file := env("FAKE_GRANDCHILD"):
        child = subprocess.Popen(["sleep", "600"])
        Path(file).write_text(str(child.pid))
    print("fake llama-server starts", file=sys.stderr, flush=True)
    server = Server()
    listener = await asyncio.start_unix_server(server.connection, option("--host", ""))
    async with listener:
        await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
