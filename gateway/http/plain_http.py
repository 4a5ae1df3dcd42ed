"""Answers plain HTTP on the TLS port with a readable error, in place of an alert."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from gateway.errors import BadRequest
from gateway.http.refusals import BEGINNING, LINGER

_MUCH: Final = 64 * 1024


class HttpsOnly(BadRequest):
    """400: plain HTTP arrived on a port that speaks TLS."""

    default_code = "https_only"

    def __init__(self) -> None:
        super().__init__(
            "this port speaks https: begin the address with https:// instead of http://"
        )


async def speaks_http(accepted: socket.socket) -> bool:
    """Wait for the first byte, and leave it there: does it begin the name of a method?

    A record of TLS begins with 20 to 23 (RFC 8446, 5.1), which are no letters.
    """
    loop = asyncio.get_running_loop()
    there = loop.create_future()

    def note_readable() -> None:
        if not there.done():
            there.set_result(None)

    loop.add_reader(accepted, note_readable)
    try:
        await there
    finally:
        loop.remove_reader(accepted)
    return accepted.recv(1, socket.MSG_PEEK).isalpha()


async def answer(accepted: socket.socket, refuse: Callable[[bytes], bytes]) -> None:
    """Read a head, or the beginning of one, and answer it with what ``refuse`` makes of it."""
    loop = asyncio.get_running_loop()
    start = b""
    while b"\r\n\r\n" not in start and len(start) < BEGINNING:
        data = await loop.sock_recv(accepted, BEGINNING)
        if not data:
            break
        start += data
    await loop.sock_sendall(accepted, refuse(start))
    accepted.shutdown(socket.SHUT_WR)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while await loop.sock_recv(accepted, _MUCH):
                pass
