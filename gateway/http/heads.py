"""Heads of requests for the fast JSON protocol, parsed once and then recognised by their bytes."""

from __future__ import annotations

import re
from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from multidict import CIMultiDict

from gateway.bounded_cache import BoundedCache
from gateway.config.settings import LimitSettings
from gateway.http.answer_headers import AnswerHeaders
from gateway.http.request import Endpoint, FastRequest
from gateway.http.response import lines_of
from gateway.sized_head import size_in

#: How such a head begins.
POST = b"POST /"
_MAX_HEADERS = 100
_MAX_DIGITS = 8
_LENGTH = re.compile(
    rb"\r\ncontent-length:[ \t]*([0-9]{1,%d})(?=\r\n)" % _MAX_DIGITS, re.IGNORECASE
)
#: How many heads are kept.
_KEPT = 256
#: Headers that a small, complete request doesn't need.
_ODD = frozenset(
    {
        b"transfer-encoding",
        b"content-encoding",
        b"expect",
        b"upgrade",
        b"trailer",
        b"te",
        b"sec-websocket-key1",  # aiohttp refuses it
    }
)


class Head:
    """The head of a request that is served here, without the length of its body.

    Most clients send the same one with every request. So it is kept, with all that can be read in
    it, and not parsed again if all of its other bytes come again.
    """

    __slots__ = (
        "_after",
        "_answer_headers",
        "_before",
        "_fixed",
        "_hsts",
        "_max_body",
        "endpoint",
        "headers",
        "keep_alive",
        "path",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        answer_headers: AnswerHeaders,
        path: str,
        headers: CIMultiDict[str],
        *,
        keep_alive: bool,
    ) -> None:
        #: The endpoint that answers requests with this head. It knows what the application has read
        #: in it.
        self.endpoint = endpoint
        self.path = path
        self.headers = headers
        self.keep_alive = keep_alive
        self._answer_headers = answer_headers
        self._before = self._after = b""
        self._max_body = 0
        self._fixed: bytes | None = None
        self._hsts: str | None = None

    def came_as(self, before: bytes, after: bytes, max_body: int) -> None:
        """Remember its bytes before and after the digits of the body's length, which is at most
        ``max_body``.
        """
        self._before, self._after, self._max_body = before, after, max_body

    def again(self, data: bytes) -> tuple[Head, int, int] | None:
        """Return this head, and where its body begins and ends, if ``data`` begins with it.

        Nearly always, the next request on the same connection does.
        """
        found = size_in(data, self._before, self._after, _MAX_DIGITS)
        if found is None or found[0] > self._max_body:
            return None
        length, body = found
        return self, body, body + length

    def answer_lines(self, request: FastRequest) -> bytes:
        """Return the header lines that are the same in every complete answer to it."""
        hsts = self._answer_headers.hsts(request)
        if self._fixed is None or self._hsts != hsts:
            headers: CIMultiDict[str] = CIMultiDict()
            self._answer_headers.add_common(headers, self.headers, hsts)
            self._fixed, self._hsts = lines_of(headers.items()), hsts
        return self._fixed

    def decorate(self, request: FastRequest, headers: CIMultiDict[str]) -> None:
        """Add the fields to ``headers`` that every answer carries, and those of this one."""
        self._answer_headers.decorate(request, request.context, headers)


class ParsedHead:
    """A head as httptools reports it."""

    __slots__ = ("count", "headers", "keep_alive", "longest", "names", "plain", "target")

    def __init__(self) -> None:
        self.longest = 0  # bytes of a header, name and value
        self.target = b""
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.names: set[bytes] = set()
        self.count = 0
        self.plain = True  # nothing unusual so far
        self.keep_alive = True

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.count += 1
        self.longest = max(self.longest, len(name) + len(value))
        lower = name.lower()
        self.names.add(lower)
        if lower in _ODD:
            self.plain = False
        # As aiohttp does: bytes that aren't UTF-8 become lone surrogates.
        text = value.strip(b" \t").decode("utf-8", "surrogateescape")
        self.headers.add(name.decode("ascii"), text)


def parse_head(raw: bytes, max_count: int, max_header: int) -> ParsedHead | None:
    """Return what a head says; ``None`` unless it is a POST as plain as most are.

    ``max_count``: header fields; ``max_header``: bytes of each.
    """
    parsed = ParsedHead()
    parser = HttpRequestParser(parsed)
    try:
        parser.feed_data(raw)
    except (HttpParserError, HttpParserUpgrade):
        return None
    lines = parsed.count + 2  # the request's own, and the empty one
    if (
        not raw.startswith(POST)
        or not parsed.plain
        or not parsed.names.issuperset((b"host", b"content-length"))
        or len(parsed.names) != parsed.count  # one is there twice
        or parsed.count > max_count
        or parsed.longest > max_header
        or raw.count(b"\n") != lines
        or raw.count(b"\r") != lines
        or parser.get_http_version() != "1.1"
    ):
        return None
    parsed.keep_alive = parser.should_keep_alive()
    return parsed


class Heads:
    """A cache of heads that came before, each with its endpoint.

    ``find``: what answers a POST with this target and these headers, or None: it is not for here.
    """

    def __init__(
        self,
        find: Callable[[bytes, CIMultiDict[str]], Endpoint | None],
        answer_headers: AnswerHeaders,
        limits: LimitSettings,
        max_body: int,
    ) -> None:
        self._find = find
        self._answer_headers = answer_headers
        self._max_header = limits.max_header
        self._max_count = min(_MAX_HEADERS, limits.max_header_count)
        self._max_body = max_body
        #: Heads by their bytes, without the body's length.
        self._kept: BoundedCache[bytes, Head] = BoundedCache(_KEPT)

    def __len__(self) -> int:
        """Return how many heads are kept."""
        return len(self._kept)

    def read(self, raw: bytes) -> tuple[Head, int] | None:
        """Return the head ``raw`` and the length of the body behind it; None if that isn't for
        here.
        """
        length = _LENGTH.search(raw)
        if length is None or int(length[1]) > self._max_body:
            return None
        others = raw[: length.start()] + raw[length.end() :]
        head = self._kept.get(others)
        if head is None:
            parsed = parse_head(raw, self._max_count, self._max_header)
            if parsed is None:
                return None
            endpoint = self._find(parsed.target, parsed.headers)
            if endpoint is None:
                return None
            head = self._kept[others] = Head(
                endpoint,
                self._answer_headers,
                parsed.target.decode("ascii"),
                parsed.headers,
                keep_alive=parsed.keep_alive,
            )
        head.came_as(raw[: length.start(1)], raw[length.end() :], self._max_body)
        return head, int(length[1])
