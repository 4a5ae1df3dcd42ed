"""A scripted llama-server for the benchmark: cheap, paced, and numbered so that losses show.

Takes llama-server's flags (``--host X.sock``, ``--list-devices``; others are ignored), so the
gateway can start it as its child; with BENCH_PORT=N it also listens on that TCP port of 127.0.0.1.

GET /health, POST /v1/chat/completions: a fixed answer, or with ``"stream": true`` a stream of
``max_tokens`` events, ``bench_rate`` a second, each with its number and the time it was sent.
Connections end as llama-server's (cpp-httplib) do: after 100 requests, or 5 s without one.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from typing import Any, ClassVar

import httptools
import orjson

MAX_REQUESTS = 100
IDLE_SECONDS = 5.0
FIRST_EVENT_AFTER = 0.005

_OBJECT = b'"created":1750000000,"id":"chatcmpl-pZ0dYk2rVx8QmA7sLwT3uNfC9hJbE6gR","model":"bench"'

#: An event is PREFIX, six digits of number, a space, 19 digits of nanoseconds, SUFFIX.
PREFIX = b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"'
SUFFIX = b'"}}],' + _OBJECT + b',"system_fingerprint":"b1-0","object":"chat.completion.chunk"}\n\n'
EVENT_BYTES = len(PREFIX) + 6 + 1 + 19 + len(SUFFIX)

#: What follows the last numbered event.
LAST = (
    b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],' + _OBJECT + b","
    b'"system_fingerprint":"b1-0","object":"chat.completion.chunk","usage":{"completion_tokens":50,'
    b'"prompt_tokens":40,"total_tokens":90},"timings":{"cache_n":0,"prompt_n":40,"prompt_ms":90.5,'
    b'"prompt_per_token_ms":2.26,"prompt_per_second":441.9,"predicted_n":50,"predicted_ms":1000.5,'
    b'"predicted_per_token_ms":20.01,"predicted_per_second":49.97}}\n\n'
)
DONE = b"data: [DONE]\n\n"

#: The whole answer where no stream is asked for.
ANSWER = (
    b'{"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":'
    b'"The Nile is in the north-east of Africa. It flows from the great lakes to the Mediterranean '
    b'Sea."}}],' + _OBJECT + b',"system_fingerprint":"b1-0","object":"chat.completion","usage":'
    b'{"completion_tokens":24,"prompt_tokens":40,"total_tokens":64},"timings":{"cache_n":0,'
    b'"prompt_n":40,"prompt_ms":90.5,"prompt_per_token_ms":2.26,"prompt_per_second":441.9,'
    b'"predicted_n":24,"predicted_ms":480.2,"predicted_per_token_ms":20.0,"predicted_per_second":'
    b"49.9}}"
)

_COMMON = b"Server: llama.cpp\r\nAccess-Control-Allow-Origin: \r\n"
_KEEP = b"Keep-Alive: timeout=5, max=100\r\n"
_CLOSE = b"Connection: close\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\n%b" + _COMMON + b"Content-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_JSON_HEAD = (
    b"HTTP/1.1 %b\r\n%b" + _COMMON + b"Content-Type: application/json; charset=utf-8\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
_ANSWERS = tuple(_JSON_HEAD % (b"200 OK", kind, len(ANSWER), ANSWER) for kind in (_KEEP, _CLOSE))
_CHUNK_BEFORE = b"%x\r\n%b" % (EVENT_BYTES, PREFIX)
_CHUNK_AFTER = SUFFIX + b"\r\n"
_END = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(LAST), LAST, len(DONE), DONE)


class Connection(asyncio.Protocol):
    """One client connection."""

    open: ClassVar[set[Connection]] = set()

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.parser = httptools.HttpRequestParser(self)
        self.served = 0
        self.busy = False
        self.idle_since = self.loop.time()
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open.discard(self)
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body = b""
        self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body = self.body + body if self.body else body

    def on_message_complete(self) -> None:
        self.served += 1
        last = self.served >= MAX_REQUESTS
        if self.url == b"/health":
            body = b'{"status":"ok"}'
            kind = _CLOSE if last else _KEEP
            self.transport.write(_JSON_HEAD % (b"200 OK", kind, len(body), body))
        elif not self.url.endswith(b"/chat/completions"):
            body = b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}'
            self.transport.write(_JSON_HEAD % (b"404 Not Found", _CLOSE, len(body), body))
            last = True
        else:
            asked = orjson.loads(self.body)
            if asked.get("stream"):
                self.stream(asked["max_tokens"], 1 / asked["bench_rate"])
                return
            self.transport.write(_ANSWERS[last])
        self.answered()

    def answered(self) -> None:
        self.busy = False
        self.idle_since = self.loop.time()
        if self.served >= MAX_REQUESTS:
            self.transport.close()

    # --- streams ---------------------------------------------------------------------------

    def stream(self, events: int, period: float) -> None:
        self.busy = True
        self.events, self.period, self.number = events, period, 0
        # No model answers within a microsecond. Go's ReverseProxy relies on that: its server closes
        # the body of a request whose answer begins before it has seen the body's end.
        self.timer = self.loop.call_later(FIRST_EVENT_AFTER, self.first_event)

    def first_event(self) -> None:
        self.transport.write(_STREAM_HEAD % (_CLOSE if self.served >= MAX_REQUESTS else _KEEP))
        # The others come at moments of their own, not those of all streams at the same time.
        self.next = self.loop.time() - self.period * random.random()
        self.send_event()

    def send_event(self) -> None:
        number = self.number
        if number == self.events:
            self.timer = None
            self.transport.write(_END)
            self.answered()
            return
        self.number = number + 1
        now = self.loop.time()
        # Who is late doesn't hurry afterwards: bunched events would be cheaper to relay.
        self.next = max(self.next + self.period, now + self.period / 2)
        self.timer = self.loop.call_at(self.next, self.send_event)
        self.transport.write(
            b"%b%06d %019d%b" % (_CHUNK_BEFORE, number, time.monotonic_ns(), _CHUNK_AFTER)
        )


async def _close_idle() -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1.0)
        expired = loop.time() - IDLE_SECONDS
        for connection in list(Connection.open):
            if not connection.busy and connection.idle_since < expired:
                connection.transport.close()


async def main() -> None:
    if "--list-devices" in sys.argv:
        print("Available devices:")
        return
    loop = asyncio.get_running_loop()
    servers = []  # uvloop closes one that is garbage
    if "--host" in sys.argv:
        socket = sys.argv[sys.argv.index("--host") + 1]
        servers.append(await loop.create_unix_server(Connection, socket, backlog=1024))
    if port := os.environ.get("BENCH_PORT"):
        servers.append(await loop.create_server(Connection, "127.0.0.1", int(port), backlog=1024))
    print("scripted llama-server is listening", file=sys.stderr, flush=True)
    await _close_idle()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
