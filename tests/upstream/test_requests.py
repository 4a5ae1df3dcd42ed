"""What a request is on the wire: its line, Host, framing; and nothing besides."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.upstream import UnixAddress, UpstreamRequest
from gateway.upstream.request import serialised
from tests.pools import Keeping, MakePool


async def test_request_is_written_as_it_was_given_and_its_connection_reused(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    keeping = Keeping(backend)
    pool = pool_of(await backend.serve(keeping))
    for body in (b'{"a": 1}', b"x" * 1_000_000):
        sink = recorder()
        exchange = await pool.send(
            UpstreamRequest("POST", "/v1/x?y=%20", b"X-A: b\r\n", body), sink
        )
        assert await sink.answer() == (200, b"ok")
        assert exchange.answered
        number, head, got = keeping.requests.pop()
        assert number == 0  # always the same connection
        assert got == body
        assert head == (
            b"POST /v1/x?y=%%20 HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )


@pytest.mark.parametrize(
    ("method", "framing"),
    [("GET", b""), ("HEAD", b""), ("DELETE", b""), ("POST", b"Content-Length: 0\r\n")],
)
async def test_request_without_body_has_the_framing_of_its_method(
    backend: Any, pool_of: MakePool, recorder: Any, method: str, framing: bytes
) -> None:
    keeping = Keeping(backend)
    pool = pool_of(await backend.serve(keeping))
    sink = recorder()
    await pool.send(UpstreamRequest(method, "/"), sink)
    assert await sink.answer() == (200, b"" if method == "HEAD" else b"ok")
    line = method.encode() + b" / HTTP/1.1\r\nHost: localhost\r\n"
    assert keeping.requests[0][1] == line + framing + b"\r\n"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/ HTTP/1.1\r\nX: y"),
        ("GET", "/a b"),
        ("GET", "/\n"),
        ("GET", "/\u00e9"),
        ("GET /", "/"),
    ],
)
async def test_nothing_can_be_smuggled_into_the_request_line(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, method: str, target: str
) -> None:
    pool = pool_of(await backend.serve(Keeping(backend)), max_connections=1)
    for _ in range(2):
        with pytest.raises(ValueError, match="not a "):
            await pool.send(UpstreamRequest(method, target), recorder())
    assert await get(pool) == (200, b"ok")  # the place is free
    assert backend.connections == 1


@pytest.mark.parametrize("authority", ["a\r\nX: y", "a b", "\u00e4"])
async def test_authority_that_host_cannot_name_is_refused(
    pool_of: MakePool, authority: str
) -> None:
    with pytest.raises(ValueError, match="not an authority"):
        pool_of(UnixAddress("/x.sock", authority))


async def test_host_names_an_ipv6_address_in_brackets(
    pool_of: MakePool, backend: Any, get: Any
) -> None:
    keeping = Keeping(backend)
    address = await backend.serve(keeping, tcp="::1")
    await get(pool_of(address))
    assert b"\r\nHost: [::1]:%d\r\n" % address.port in keeping.requests[0][1]


@pytest.mark.parametrize("size", [10, 200_000])
@pytest.mark.parametrize("space", [b"", b" \n"])
def test_lead_goes_out_in_place_of_the_brace(size: int, space: bytes) -> None:
    body = space + b'{"a":"%b"}' % (b"x" * size)
    request = UpstreamRequest("POST", "/", body=body, lead=b'{"id_slot":3,')
    first, rest = serialised(request, "Host: here\r\n")
    assert rest is None or isinstance(rest, bytes)
    head, _, sent = (first + (rest or b"")).partition(b"\r\n\r\n")
    assert sent == b'{"id_slot":3,"a":"%b"}' % (b"x" * size)
    assert b"Content-Length: %d\r\n" % len(sent) in head + b"\r\n"
    assert request.body == body
