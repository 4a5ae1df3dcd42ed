"""Which headers pass between client and backend. Pure.

Towards the backend an allow list: what a client says about itself, its cookies, its key and
anything that reaches into llama-server (``X-Conversation-Id`` replays other clients' streams)
stays here. Towards the client a deny list: framing is ours (RFC 9110, 7.6.1), and llama-server's
CORS headers, cookies and banner are not for the internet.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from gateway.errors import RateLimited, Unavailable
from gateway.http.response import HeaderList

#: The request headers that reach the backend.
FORWARDED = ("Content-Type", "Accept")

#: The answer headers that don't reach the client, in lower case.
_DROPPED = frozenset(
    {
        # hop-by-hop (RFC 9110, 7.6.1) and framing, which each connection has for itself
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
        # said by the gateway itself
        b"server",
        b"date",
        b"vary",
        b"x-accel-buffering",
        b"cache-control",
        b"x-powered-by",
        # what a remote server says about its account, and where else to send a request,
        # which a client would do with the gateway's key in it
        b"location",
        b"openai-organization",
        b"openai-project",
        b"proxy-status",
        b"via",
        b"www-authenticate",
        b"x-request-id",
        # not for the client
        b"set-cookie",
        b"alt-svc",
        b"strict-transport-security",
        b"referrer-policy",
        b"x-content-type-options",
        b"x-frame-options",
    }
)

_DROPPED_FAMILIES = (b"access-control-", b"x-gateway-", b"x-ratelimit-")

#: Seconds after which to retry, by status, where a backend doesn't say: too many requests, and
#: unavailable (RFC 6585, 4; RFC 9110, 15.6.4).
_COME_BACK = {429: RateLimited.retry_after, 503: Unavailable.retry_after}
#: Headers that describe a backend's error body, which is replaced by ours.
_OF_ERRORS = ("content-type", "content-encoding", "x-should-retry")

#: Headers of streams: no proxy in front may buffer them (nginx reads X-Accel-Buffering) or cache
#: them.
STREAM_HEADERS = (("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no"))


def to_client(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """Return the headers of a backend's answer that the client gets."""
    return _to_client(tuple(headers))


@functools.lru_cache(64)  # a backend says the same thing nearly every time
def _to_client(headers: tuple[tuple[bytes, bytes], ...]) -> HeaderList:
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if (key := name.lower()) not in _DROPPED and not key.startswith(_DROPPED_FAMILIES)
    )


def of_error(passed: HeaderList, when: str | None, *, fleeting: bool) -> HeaderList:
    """Return the same headers for an error, whose body has become JSON.

    ``when``: its ``Retry-After``, where that is missing. ``fleeting``: whether the same request
    may succeed if it is sent again; where it may not, OpenAI's and Anthropic's clients are told so.
    """
    others = [pair for pair in passed if pair[0].lower() not in _OF_ERRORS]
    told = [] if fleeting else [("x-should-retry", "false")]
    if when is not None and not any(name.lower() == "retry-after" for name, _ in others):
        told.append(("Retry-After", when))
    return (*others, ("Content-Type", "application/json; charset=utf-8"), *told)


def as_json(passed: HeaderList) -> HeaderList:
    """Return the same headers for a body that has become JSON."""
    others = [pair for pair in passed if pair[0].lower() != "content-type"]
    return (*others, ("Content-Type", "application/json; charset=utf-8"))


def retry_after(status: int, said: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return when to come back, after an answer of a backend with ``status`` and these headers.

    It is the backend's value (RFC 9110, 10.2.3: seconds, or a date), or the one it should have
    sent.
    """
    found = find(said, b"retry-after")
    if found is not None:
        return found.decode("latin-1")
    return _COME_BACK.get(status)


def vary(said: Iterable[tuple[bytes, bytes]]) -> str:
    """Return ``Vary`` for a backend's answer that also depends on what the client accepts."""
    fields = [
        field.strip()
        for name, value in said
        if name.lower() == b"vary"
        for field in value.decode("latin-1").split(",")
    ]
    named = {field.lower(): field for field in (*fields, "Accept-Encoding") if field}
    return ", ".join(named.values())


def find(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the value of the header ``name`` (lower case), or ``None``."""
    return next((value for key, value in headers if key.lower() == name), None)
