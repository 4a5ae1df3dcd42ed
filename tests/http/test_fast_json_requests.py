"""The fast JSON protocol: which requests it serves, and that it answers them as aiohttp does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.http.fast_json import MAX_HEAD
from gateway.http.fast_listener import MAX_BODY
from gateway.http.heads import Head
from tests.harness import MakeGateway, eventually, fake_model
from tests.http.fast_json import FIRST, STREAM, answers_in, listener_of, only_connection
from tests.wire import CHAT, connected, counted, head, post


def unnamed(model: str) -> bytes:
    """A request for a model that isn't there: its answer says which."""
    return CHAT.replace(b"good", model.encode())


# --- one meaning ---------------------------------------------------------------------------

LINES = [
    b"Host: 127.0.0.1",
    b"Host:",
    b"host: evil.example",
    b"Content-Length: 4",
    b"content-length:\t0004 ",
    b"Content-Length: 5, 5",
    b"Content-Length: +4",
    b"Content-Length : 4",
    b"Content-Length: 99999999",
    b"Content_Length: 7",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding:",
    b"Authorization: Bearer a",
    b"Content-Type: application/json",
    b"Connection: close",
    b"Connection: keep-alive, close",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Key1: x",
    b"X-Forwarded-For: 203.0.113.9",
    b"X: y ",
    b"X:\ty\xff",
    b"X: y\x00",
    b"X: y\rz",
    b"X: y\nz",
    b"X\x00: y",
    b" folded",
    b"\tfolded",
    b": y",
    b"no colon",
    b"",
]


DAMAGE = st.tuples(
    st.integers(0, 400), st.sampled_from([b"", b" ", b"\t", b"\r", b"\n", b"\0", b":", b"\x7f"])
)


async def test_head_means_what_it_means_to_aiohttp(make_gateway: MakeGateway) -> None:
    """Nothing is served here that aiohttp would refuse, or read otherwise."""
    loop = asyncio.get_running_loop()
    taken = 0
    known: list[Head] = []

    def by_aiohttp(data: bytes) -> Any:
        parser = HttpRequestParser(
            BaseProtocol(loop), loop, 2**16, max_line_size=8190, max_field_size=8190
        )
        ((message, payload),), upgraded, tail = parser.feed_data(data)
        assert not upgraded
        assert not tail
        return message, payload

    def fields(headers: Any) -> list[tuple[str, str]]:
        # In front a head is kept for any length.
        kept = ((name.lower(), value) for name, value in headers.items())
        return sorted(pair for pair in kept if pair[0] != "content-length")

    async with make_gateway({}) as running:
        entrance = listener_of(running)

        @settings(max_examples=1000)
        @given(
            st.permutations(LINES[:1] + LINES[3:4] + LINES[12:14]),
            st.lists(st.tuples(st.integers(0, 8), st.sampled_from(LINES)), max_size=2),
            st.lists(DAMAGE, max_size=2),
        )
        @example([*LINES[:1], *LINES[3:4]], [(1, b"X: y ")], [])
        @example([*LINES[:1], *LINES[3:4]], [(1, b"Sec-WebSocket-Key1: x")], [])
        @example([*LINES[:1], *LINES[3:4]], [(1, b"User-Agent: x"), (1, b"User-Agent: x")], [])
        def same(
            lines: list[bytes], more: list[tuple[int, bytes]], damages: list[tuple[int, bytes]]
        ) -> None:
            nonlocal taken
            lines = list(lines)
            for place, line in more:
                lines.insert(place, line)
            data = bytearray(b"\r\n".join([FIRST.encode(), *lines, b"", b""]))
            for place, put in damages:
                data[place : place + (place % 2)] = put
            raw = bytes(data)
            end = raw.find(b"\r\n\r\n")
            before = [head.again(raw) for head in known]
            if end < 0 or (found := entrance.heads.read(raw[: end + 4])) is None:
                assert not any(before)
                return
            whole = found[0], end + 4, end + 4 + found[1]
            assert [again for again in before if again is not None] in ([], [whole])
            assert found[0].again(raw) == whole
            known[:] = found[:1]
            taken += 1
            parsed, length = found
            message, payload = by_aiohttp(raw[: end + 4] + b"x" * length)
            assert message.method == "POST"
            assert message.path == parsed.path
            assert tuple(message.version) == (1, 1)
            assert fields(message.headers) == fields(parsed.headers)
            assert message.should_close is not parsed.keep_alive
            assert not message.chunked
            assert message.compression is None
            assert payload.total_bytes == length

        same()
    assert taken > 100


async def test_requests_cut_anywhere_get_the_same_answers(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        await running.gateway.scheduler.load("good")
        sent = b"".join(
            (
                post(running, unnamed("first")),
                post(running, CHAT, "X: y"),
                post(running, b""),
                post(running, STREAM),
                post(running, unnamed("second")),
                head(running, "GET /models HTTP/1.1"),
                post(running, unnamed("third")),
                post(running, CHAT, "Connection: close"),
            )
        )
        loop = asyncio.get_running_loop()

        async def answers(cuts: list[tuple[int, bool]]) -> list[tuple[int, set[str], bytes]]:
            async with connected(running) as client:
                await eventually(lambda: len(listener_of(running).open) == 1)
                front = only_connection(running)
                transport = front.transport
                begin = 0
                for cut, pause in [*sorted(cuts), (len(sent), False)]:
                    if cut > begin and not transport.is_closing():
                        # As the transport does, with exactly these bytes.
                        served = transport.get_protocol()
                        assert isinstance(served, asyncio.Protocol)
                        served.data_received(sent[begin:cut])
                    begin = max(begin, cut)
                    if pause:
                        await asyncio.sleep(0)
                got = await client.closed()
            await counted(running, 0)
            return [(status, set(headers), body) for status, headers, body in answers_in(got)]

        whole = await answers([])
        said = [
            (status, re.findall(rb"there is no model '(\w+)'", body)) for status, _, body in whole
        ]
        assert said == [
            (404, [b"first"]),
            (200, []),
            (400, []),
            (200, []),
            (404, [b"second"]),
            (200, []),
            (404, [b"third"]),
            (200, []),
        ]

        @settings(max_examples=50)
        @given(st.lists(st.tuples(st.integers(1, len(sent)), st.booleans()), max_size=12))
        @example([(place, True) for place in range(1, len(sent), 7)])
        @example([(place, False) for place in range(1, len(sent))])
        def same(cuts: list[tuple[int, bool]]) -> None:
            assert asyncio.run_coroutine_threadsafe(answers(cuts), loop).result(60) == whole

        await asyncio.to_thread(same)


ALIKE: list[tuple[bytes, tuple[str, ...]]] = [
    (CHAT, ()),
    (STREAM, ()),
    (CHAT, ("Connection: close",)),
    (STREAM, ("Connection: close",)),
    (b"{", ()),
    (b"{", ("Connection: close",)),
    (unnamed("none"), ("Origin: https://a.example",)),
    (CHAT, ("Origin: https://a.example",)),
    (STREAM, ("Origin: https://b.example",)),
    (CHAT, ("X-Api-Key: x",)),
    (CHAT, ("X-Personality: none",)),
    (CHAT, ("X-Personality: unknown",)),
]


async def test_answers_are_those_of_aiohttp(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """But for the date, and the number of the request."""
    cors = {"origins": ["https://a.example"]}
    async with make_gateway({"good": fake_model(tmp_path)}, cors=cors) as running:
        assert running.gateway.ring is not None
        _, limited = await running.gateway.ring.create("limited", "", limits={"rpm": 600})
        requests = [post(running, body, *lines) for body, lines in ALIKE]
        good = requests[0]
        requests += [
            good.replace(b"Bearer llmgw", b"Bearer wrong"),
            good.replace(b"Authorization", b"Nothing"),
            good.replace(b"127.0.0.1", b"evil.example.com"),
            good.replace(running.key.encode(), limited.encode()),
            good.replace(b"/v1/chat/completions", b"/v1/messages"),
            good.replace(b"/v1/chat/completions", b"/v1/messages").replace(CHAT, b"{" * len(CHAT)),
        ]
        await running.gateway.scheduler.load("good")

        async def answer(request: bytes, *, here: bool) -> tuple[int, dict[str, str], bytes]:
            async with connected(running) as client:
                client.send(request)
                async with asyncio.timeout(10):
                    got = await client.reader.readuntil(b"\r\n\r\n")
                    assert len(listener_of(running).open) <= here
                    if b"\r\nConnection: close" in got:
                        got += await client.reader.read()
                    elif b"\r\nContent-Length: " in got:
                        length = re.search(rb"Content-Length: (\d+)", got)
                        assert length is not None
                        got += await client.reader.readexactly(int(length[1]))
                    else:
                        got += await client.reader.readuntil(b"\r\n0\r\n\r\n")
            ((status, headers, body),) = answers_in(got)
            for name in headers:
                if name in ("date", "x-request-id", "x-stream-id") or "ratelimit" in name:
                    headers[name] = ""
            return status, headers, body

        for request in requests:
            by_front = await answer(request, here=True)
            there = request.replace(b" HTTP/1.1\r\n", b"?x=1 HTTP/1.1\r\n", 1)
            assert by_front == await answer(there, here=False), request


# --- the borders ---------------------------------------------------------------------------


async def test_only_plain_small_requests_are_served_here(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    def padded(size: int) -> bytes:
        """A request whose head has ``size`` bytes."""
        short = len(post(running, CHAT, "X: ")) - len(CHAT)
        made = post(running, CHAT, "X: " + "y" * (size - short))
        assert made.index(b"\r\n\r\n") + 4 == size
        return made

    def lines(count: int) -> bytes:
        return post(running, CHAT, *(f"X-{n}: y" for n in range(count - 3)))

    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        full = CHAT + b" " * (MAX_BODY - len(CHAT))
        plain = post(running, CHAT)
        for request, here in (
            (plain, True),
            (post(running, full), True),
            (post(running, full + b" "), False),
            (padded(MAX_HEAD), True),
            (padded(MAX_HEAD + 1), False),
            (lines(100), True),
            (lines(101), False),
            (plain.replace(b"Content-Length: ", b"content-LENGTH:\t000"), True),
            (plain.replace(b"/v1/chat", b"http://127.0.0.1/v1/chat"), False),
            (plain.replace(b"/v1/chat", b"/v1/%63hat"), False),
            (post(running, CHAT, "X: y", "x: z"), False),
            (post(running, CHAT, "TE: trailers"), False),
            (post(running, CHAT, "Content-Encoding: identity"), False),
            (b"\r\n" + plain, False),
        ):
            with subtests.test(f"{request!r:.80}"):
                async with connected(running) as client:
                    client.send(request)
                    assert (await client.answer())[0] == 200, request[:200]
                    assert len(listener_of(running).open) == here, request[:200]
                    client.send(plain)  # whoever serves it goes on
                    assert (await client.answer())[0] == 200
        # Refused by aiohttp, and at once: none waits for a head that never comes.
        for request in (
            plain.replace(b"\r\n", b"\n"),
            plain.replace(b"\r\n", b"\n", 1),
            post(running, CHAT, "X: y\r\n folded"),
            post(running, CHAT, "X: y\x00"),
            post(running, CHAT, "X : y"),
            post(running, CHAT, "X: y\rz"),
            post(running, CHAT, "Host: 127.0.0.1"),
            post(running, CHAT, f"Content-Length: {len(CHAT)}"),
            post(running, CHAT, "Transfer-Encoding: chunked"),
            plain.replace(b"Content-Length: ", b"Content-Length: +"),
            plain.replace(b"Content-Length: ", b"Content-Length: 0x"),
            plain.replace(b"Content-Length: ", b"Content-Length : "),
            plain.replace(b"Host: 127.0.0.1\r\n", b""),
        ):
            with subtests.test(f"{request!r:.80}"):
                async with connected(running) as client:
                    client.send(request)
                    assert await client.error() == (400, "malformed_request"), request
