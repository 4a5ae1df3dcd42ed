"""A request to a backend as a value, and as bytes (RFC 9112). Pure."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable

from gateway.upstream.address import TcpAddress, UnixAddress

_JOIN_BELOW = 64 * 1024  # bytes: up to here copying a body behind its head beats a second write
_COPIED = 16 * 1024  # bytes
_NO_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


class UpstreamRequest:
    """A request as it is sent to a backend. It doesn't change during its exchange.

    ``headers``: ready lines, each ending in CRLF, without what is written here: Host (RFC 9112,
    3.2), and Content-Length or Transfer-Encoding. A ``body`` that is iterated over goes out as it
    comes, once, with ``body_length`` as its Content-Length, or chunked if that is None.
    ``head_timeout``: seconds without any progress, up to the head of the answer, that the backend
    may take, not counting those that a streamed body is waited for. ``prefix``: the chain of hashes
    of its conversation, where several servers have the model. ``lead``: goes out in place of the
    first ``{`` of a body that is here, a JSON object with anything in it.
    """

    # gateway.proxy.call extends it with what it has to remember: one object less.
    __slots__ = (
        "body",
        "body_length",
        "head_timeout",
        "headers",
        "lead",
        "method",
        "prefix",
        "target",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: bytes = b"",
        body: bytes | AsyncIterable[bytes] | None = None,
        body_length: int | None = None,
        head_timeout: float | None = None,
        prefix: tuple[bytes, ...] = (),
        lead: bytes = b"",
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.body_length = body_length
        self.head_timeout = head_timeout
        self.prefix = prefix
        self.lead = lead

    @property
    def body_is_here(self) -> bool:
        """Whether the whole body is in memory."""
        return self.body is None or isinstance(self.body, bytes)


def serialised(
    request: UpstreamRequest, host_line: str
) -> tuple[bytes, bytes | AsyncIterable[bytes] | None]:
    """Return what of ``request`` is written first, and what of its body after that, if there is
    more.

    A small body is part of the first. Raises ValueError where the method or the target is none.
    """
    method, body = request.method, request.body
    beginning = _beginning(method, request.target, host_line)
    if not body:
        framing = b"\r\n" if method in _NO_BODY else b"Content-Length: 0\r\n\r\n"
        return beginning + request.headers + framing, None
    if isinstance(body, bytes):
        lead: bytes = request.lead
        rest: bytes | memoryview = body
        if lead:
            start = body.index(b"{") + 1
            # A view costs more than it takes to copy a small one twice.
            rest = body[start:] if len(body) < _COPIED else memoryview(body)[start:]
        framing = b"Content-Length: %d\r\n\r\n" % (len(lead) + len(rest))
        if len(body) < _JOIN_BELOW:
            return b"".join((beginning, request.headers, framing, lead, rest)), None
        framing += lead
        body = bytes(rest)
    elif request.body_length is None:
        framing = b"Transfer-Encoding: chunked\r\n\r\n"
    else:
        framing = b"Content-Length: %d\r\n\r\n" % request.body_length
    return beginning + request.headers + framing, body


@functools.lru_cache(256)
def _beginning(method: str, target: str, host_line: str) -> bytes:
    """Return the request line and ``Host``, as most requests have them again and again."""
    # No space, and nothing that ends the line, may come in through the target.
    if not (method.isalpha() and target.isascii() and target.isprintable()) or " " in target:
        raise ValueError("not a method and a request target")
    return f"{method} {target} HTTP/1.1\r\n{host_line}".encode("ascii")


def host_line_of(address: UnixAddress | TcpAddress) -> str:
    """Return the header line ``Host`` of requests to ``address``. Raises ValueError
    for a bad one.
    """
    authority = address.authority
    if not authority and isinstance(address, TcpAddress):
        host = f"[{address.host}]" if ":" in address.host else address.host
        authority = f"{host}:{address.port}"
    if not (authority.isascii() and authority.isprintable()) or " " in authority:
        raise ValueError("not an authority")
    return f"Host: {authority}\r\n"
