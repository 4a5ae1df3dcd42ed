"""A scripted llama-server for the soak: cheap, and every answer names the request it belongs to.

Takes llama-server's flags (``--host X.sock``, ``--alias``); others are ignored. An answer says
``ALIAS|PERSONA|NONCE``: PERSONA is the last word of the system message (``-`` without one), NONCE
the last word of the user's. A stream says the same in ``max_tokens`` events, ``soak_pause`` seconds
apart, each with its number. A request with ``soak_silent`` is never answered.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import httptools
import orjson

#: As llama-server's (cpp-httplib): a connection ends after so many requests.
_MOST_REQUESTS: Final = 100
_HEAD: Final = (
    b"HTTP/1.1 %b\r\nServer: llama.cpp\r\nContent-Type: application/json\r\n%b"
    b"Content-Length: %d\r\n\r\n%b"
)
_STREAM: Final = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n%b"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_CLOSE: Final = b"Connection: close\r\n"


def option(name: str, default: str) -> str:
    """The word after ``name`` on the command line."""
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def said(alias: str, body: dict[str, Any]) -> str:
    """What the model ``alias`` says to a request."""
    persona = "-"
    text = body.get("prompt", "")
    for message in body.get("messages", ()):
        last = str(message["content"])[-200:].rsplit(None, 1)[-1]
        if message["role"] == "system":
            persona = last
        else:
            text = last
    return f"{alias}|{persona}|{str(text)[-200:].rsplit(None, 1)[-1]}"


class Connection(asyncio.Protocol):
    """One connection of the gateway's."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.parser = httptools.HttpRequestParser(self)
        self.served = 0
        self.timer: asyncio.TimerHandle | None = None
        self.url = b""
        self.body: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.url, self.body = b"", []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.served += 1
        if self.url == b"/health":
            self.answer(b"200 OK", {"status": "ok"})
        elif self.url.endswith(b"/completions"):
            self.complete(orjson.loads(b"".join(self.body)))
        else:
            self.answer(b"404 Not Found", {"error": {"code": 404, "message": "File Not Found"}})

    def complete(self, body: dict[str, Any]) -> None:
        text = said(self.alias, body)
        if body.get("soak_silent"):
            return
        if body.get("stream"):
            self.transport.write(_STREAM % (_CLOSE if self.served >= _MOST_REQUESTS else b""))
            self.event(text, 0, body["max_tokens"], body["soak_pause"])
            return
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message, "text": text}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        self.answer(b"200 OK", {"model": self.alias, "choices": [choice], "usage": usage})

    def answer(self, status: bytes, body: object) -> None:
        data = orjson.dumps(body)
        last = self.served >= _MOST_REQUESTS
        self.transport.write(_HEAD % (status, _CLOSE if last else b"", len(data), data))
        if last:
            self.transport.close()

    def event(self, text: str, number: int, events: int, pause: float) -> None:
        """Write the event ``number`` of a stream, and plan the next one."""
        if number < events:
            self.write_event({"delta": {"content": f"{text}#{number} "}})
            loop = asyncio.get_running_loop()
            self.timer = loop.call_later(pause, self.event, text, number + 1, events, pause)
            return
        self.timer = None
        usage = {"prompt_tokens": 3, "completion_tokens": events, "total_tokens": events + 3}
        self.write_event({"delta": {}, "finish_reason": "stop"}, usage=usage)
        self.transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        if self.served >= _MOST_REQUESTS:
            self.transport.close()

    def write_event(self, choice: dict[str, Any], **fields: object) -> None:
        event = {"object": "chat.completion.chunk", "model": self.alias, **fields}
        event["choices"] = [{"index": 0, **choice}]
        data = b"data: %b\n\n" % orjson.dumps(event)
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))


async def main() -> None:
    """Serve until it is killed."""
    alias = option("--alias", "child")
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: Connection(alias), option("--host", ""))
    print("the soak's llama-server is listening", file=sys.stderr, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    if "--version" in sys.argv:
        print("version: 1 (soak)", file=sys.stderr)
    elif "--list-devices" in sys.argv:
        print("Available devices:")
    elif "--help" in sys.argv:
        print("usage: llama-server [options]")
    else:
        import uvloop

        uvloop.run(main())
