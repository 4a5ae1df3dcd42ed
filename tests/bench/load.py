"""The load generator: a process of its own, whose work is not counted.

Reads one job (JSON, see :class:`Job`) from stdin, warms up, prints ``ready``, waits for a line,
runs, prints its result as one JSON line, and stays (with its connections open) until stdin ends.
Every byte of every stream is compared with what the scripted llama-server sends, in order.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httptools

from tests.bench.front import address_of
from tests.bench.upstream import ANSWER, DONE, EVENT_BYTES, LAST, PREFIX, SUFFIX

_NUMBER = len(PREFIX)
_SENT = _NUMBER + 7
_AFTER = _SENT + 19
#: Connections that are being opened at the same time: a backlog must not overflow.
_OPENING = 50


_QUESTION = "Where is the Nile, and how long is it? "


def conversation(number: int, messages: int) -> list[list[dict[str, str]]]:
    """Return the messages of request after request of one that goes on, so many on average.

    No conversation of another number has any of them.
    """
    lengths = range(max(1, messages - 9), messages + 11, 2)
    said = [f"{number} {n} {_QUESTION * 6}" for n in range(lengths[-1])]
    whole = [{"role": ("user", "assistant")[n % 2], "content": one} for n, one in enumerate(said)]
    return [whole[:length] for length in lengths]


@dataclass
class Job:
    """What to do. ``rate``: requests a second in all (None: as fast as answers come), or events
    a second of each stream. ``seconds``: how long."""

    kind: str  # "requests" or "streams"
    port: int
    clients: int
    seconds: float
    rate: float | None
    models: Sequence[str]
    key: str | None
    tls: bool = False
    strict: bool = True  # false: a few broken answers are counted, and the run goes on
    messages: int = 1  # of each request; several: on average, of conversations that go on
    entrance: str | None = None  # of a cluster's front: a file, see tests.bench.front


class Client(asyncio.Protocol):
    """One keep-alive connection that asks again and again, and opens itself again if need be."""

    def __init__(self, run: Run, number: int) -> None:
        self.run = run
        self.number = number
        self.model = run.job.models[number % len(run.job.models)]
        self.transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] | None = None

    async def ask(self, request: bytes, message: Any) -> None:
        """Send ``request``; return when its answer has come and was found good."""
        if self.transport is None or self.transport.is_closing():
            await self.run.connect(self)
        assert self.transport is not None
        self.parser = httptools.HttpResponseParser(self)
        self.message = message
        self.failure: str | None = None
        self.done = self.run.loop.create_future()
        message.asked = time.monotonic_ns()
        self.transport.write(request)
        try:
            await self.done
        finally:
            self.done = None
        if self.failure is None:
            self.failure = message.problem()
        if self.failure is not None:
            self.run.failures.append(self.failure)
            self.close()
        elif not self.keep_alive:
            self.close()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            self.transport = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except Exception as error:
            self._end(f"not HTTP, or a wrong byte: {error.__context__ or error}")

    def eof_received(self) -> None:
        self._end("the connection ended in the middle of an answer")

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._end(f"the connection was lost: {exc}")

    def _end(self, failure: str | None) -> None:
        if self.done is not None and not self.done.done():
            self.failure = failure
            self.done.set_result(None)

    def on_headers_complete(self) -> None:
        self.message.status = self.parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.message.on_body(data)

    def on_message_complete(self) -> None:
        self.keep_alive = self.parser.should_keep_alive()  # the parser has forgotten it later
        self._end(None)


class Answer:
    """A whole answer."""

    asked = first = status = 0

    def __init__(self) -> None:
        self.body = b""

    def on_body(self, data: bytes) -> None:
        self.first = self.first or time.monotonic_ns()
        self.body = self.body + data if self.body else data

    def problem(self) -> str | None:
        # The gateway adds `responses` at the end; all else must be as it was sent.
        if self.status == 200 and self.body.startswith(ANSWER[:-1]) and self.body.endswith(b"}"):
            return None
        return f"status {self.status}, body {self.body[:300]!r}"


class Stream:
    """A streamed answer; looks at every byte."""

    asked = first = status = 0

    def __init__(self, events: int, delays: list[int]) -> None:
        self.events = events
        self.delays = delays
        self.number = 0
        self.rest = b""

    def on_body(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.first = self.first or now
        if self.rest:
            data = self.rest + data
        start = 0
        while self.number < self.events and len(data) - start >= EVENT_BYTES:
            event = data[start : start + EVENT_BYTES]
            if not event.startswith(PREFIX) or event[_AFTER:] != SUFFIX:
                raise ValueError(f"event {self.number} came as {event!r}")
            if int(event[_NUMBER : _SENT - 1]) != self.number:
                raise ValueError(f"event {self.number} came as {event[_NUMBER:_SENT]!r}")
            self.delays.append(now - int(event[_SENT:_AFTER]))
            self.number += 1
            start += EVENT_BYTES
        self.rest = data[start:]

    def problem(self) -> str | None:
        if self.status == 200 and self.number == self.events and self.rest == LAST + DONE:
            return None
        return f"status {self.status}, {self.number} of {self.events} events, {self.rest[:300]!r}"


class Run:
    """One job under way."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.loop = asyncio.get_running_loop()
        self.failures: list[str] = []
        self.opening = asyncio.Semaphore(_OPENING)
        self.tls: ssl.SSLContext | None = None
        self.address = address_of(job.entrance) if job.entrance is not None else None
        if job.tls:
            self.tls = ssl.create_default_context()
            self.tls.check_hostname = False  # it's our own process, and no name is tested here
            self.tls.verify_mode = ssl.CERT_NONE
        self.clients = [Client(self, number) for number in range(job.clients)]

    async def connect(self, client: Client) -> None:
        async with self.opening:
            if self.address is not None:
                from gateway.upstream.address import connect

                await connect(self.address, client)
                return
            await self.loop.create_connection(
                lambda: client, "127.0.0.1", self.job.port, ssl=self.tls
            )

    def request(
        self, client: Client, messages: list[dict[str, str]] | None = None, **fields: object
    ) -> bytes:
        messages = messages or [{"role": "user", "content": _QUESTION * 3}]
        asked = {"model": client.model, "messages": messages, "temperature": 0.7, **fields}
        body = json.dumps(asked).encode()
        key = f"Authorization: Bearer {self.job.key}\r\n" if self.job.key else ""
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: bench.localhost\r\nAccept: */*\r\n"
            "User-Agent: OpenAI/Python 2.0\r\nOrigin: https://app.example\r\n"
            f"Content-Type: application/json\r\n{key}Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def requests(self, seconds: float) -> tuple[list[int], list[int]]:
        """Nanoseconds until the first byte of each body, and until its end."""
        first: list[int] = []
        whole: list[int] = []
        end = self.loop.time() + seconds
        pause = self.job.clients / self.job.rate if self.job.rate else 0.0

        async def ask_on(client: Client, start: float) -> None:
            said: list[list[dict[str, str]] | None] = [None]
            if self.job.messages > 1:
                said = [*conversation(client.number, self.job.messages)]
            requests = itertools.cycle([self.request(client, messages) for messages in said])
            planned = start
            while True:
                if pause:
                    await asyncio.sleep(planned - self.loop.time())
                    planned = max(planned + pause, self.loop.time())
                if self.loop.time() >= end:
                    return
                answer = Answer()
                await client.ask(next(requests), answer)
                first.append(answer.first - answer.asked)
                whole.append(time.monotonic_ns() - answer.asked)

        now = self.loop.time()
        count = len(self.clients)
        await asyncio.gather(
            *(ask_on(c, now + pause * n / count) for n, c in enumerate(self.clients))
        )
        return first, whole

    async def streams(self, seconds: float) -> tuple[list[int], list[int]]:
        """Nanoseconds until the first event of each stream, and from each event's sending on."""
        assert self.job.rate is not None
        rate = self.job.rate
        events = max(2, round(rate * seconds))
        delays: list[int] = []

        async def follow(client: Client, wait: float) -> int:
            request = self.request(client, stream=True, max_tokens=events, bench_rate=rate)
            stream = Stream(events, delays)
            await asyncio.sleep(wait)
            await client.ask(request, stream)
            return stream.first - stream.asked

        # Over half a second, so that first events don't queue behind each other.
        spread = 0.5 / len(self.clients)
        first = await asyncio.gather(*(follow(c, spread * n) for n, c in enumerate(self.clients)))
        return first, delays


async def main() -> None:
    job = Job(**json.loads(sys.stdin.readline()))
    run = Run(job)
    work: Callable[[float], Any] = run.requests if job.kind == "requests" else run.streams
    await work(min(0.5, job.seconds) if job.kind == "requests" else 2 / (job.rate or 1))
    if run.failures and job.strict:
        print(json.dumps({"failures": run.failures[:3]}), flush=True)
        return
    run.failures.clear()
    print("ready", flush=True)
    await run.loop.run_in_executor(None, sys.stdin.readline)
    started = time.monotonic()
    first, second = await work(job.seconds)
    result = {
        "seconds": time.monotonic() - started,
        "answers": len(first),
        "events": len(second) if job.kind == "streams" else 0,
        "first": _quantiles(first),
        "second": _quantiles(second),
        "failures": run.failures[:3],
        "failed": len(run.failures),
    }
    print(json.dumps(result), flush=True)
    await run.loop.run_in_executor(None, sys.stdin.read)


def _quantiles(values: list[int]) -> dict[str, float]:
    """In microseconds."""
    values.sort()
    if not values:
        return {"p50": 0.0, "p99": 0.0}
    return {
        name: values[min(len(values) - 1, int(len(values) * share))] / 1000
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
