"""The body of a request that aiohttp serves: asked for when it is wanted, and read."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from gateway.errors import ExpectationFailed

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_ASKED = web.RequestKey("asked", bool)


async def leave_expect(_request: web.Request) -> None:
    """Do nothing for ``Expect``, in place of what aiohttp does before anybody has looked."""


def check_expect(request: web.Request) -> None:
    """Raise :class:`ExpectationFailed` for anything but ``100-continue`` (RFC 9110, 10.1.1)."""
    for given in request.headers.getall("Expect", ()):
        if any(one.strip().lower() not in ("100-continue", "") for one in given.split(",")):
            raise ExpectationFailed("Expect: only 100-continue is understood here")


async def whole_body(request: web.Request) -> bytes:
    """The body, asked for if need be. Raises aiohttp's 413 if there is too much of it."""
    ask_for(request)
    return await request.read()


def ask_for(request: web.Request) -> None:
    """Tell a client that waits with its body (``Expect: 100-continue``) to send it.

    To be called by who is about to read it: until then an error is the answer, and nothing has
    been uploaded for it.
    """
    if is_held_back(request) and request.transport is not None:
        request[_ASKED] = True
        request.transport.write(_CONTINUE)


def is_held_back(request: web.Request) -> bool:
    """Whether the client still waits to be asked for its body."""
    return (
        "Expect" in request.headers
        and request.version >= (1, 1)  # HTTP/1.0 knows no 100
        and request.can_read_body
        and not request.content.is_eof()
        and request.content.total_bytes == 0  # some of it has come: it doesn't wait
        and _ASKED not in request
    )
