"""Limits on the head of a request (RFC 9110, 15.5.15; RFC 6585, 5): ``limits``, not aiohttp's
defaults. Pure.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from gateway.config.settings import LimitSettings
from gateway.errors import BadRequest, GatewayError, HeadersTooLarge, UrlTooLong


def parser_options(limits: LimitSettings) -> dict[str, int]:
    """Return ``limits`` as options of aiohttp's ``RequestHandler``.

    aiohttp says only which number a line is over. So no two of them are the same:
    :func:`check_head` sees to the one byte.
    """
    return {
        "max_line_size": limits.max_url,
        "max_field_size": limits.max_header + (limits.max_header == limits.max_url),
        "max_headers": limits.max_header_count,
    }


def check_head(request: web.Request, limits: LimitSettings) -> None:
    """Raise :class:`HeadersTooLarge` for what the parser lets through."""
    total = len(request.raw_path)
    for name, value in request.raw_headers:
        size = len(name) + len(value)
        if size > limits.max_header:
            raise _header_too_large(limits)
        total += size + len(": \r\n")
    if total > limits.max_head:
        raise _head_too_large(limits)


def _header_too_large(limits: LimitSettings) -> HeadersTooLarge:
    return HeadersTooLarge(f"a header is over {limits.max_header} bytes (limits.max_header)")


def _head_too_large(limits: LimitSettings) -> HeadersTooLarge:
    return HeadersTooLarge(
        f"the address and the headers together are over {limits.max_head} bytes (limits.max_head)"
    )


def malformed(error: BaseException | None, limits: LimitSettings, over: bool) -> GatewayError:
    """Return what aiohttp's parser has against a head, without a word of it.

    ``over``: all that came of it is over ``limits.max_head``.
    """
    if over:
        return _head_too_large(limits)
    if isinstance(error, LineTooLong):
        if error.args[1] == limits.max_url:
            return UrlTooLong(f"the address is over {limits.max_url} bytes (limits.max_url)")
        return _header_too_large(limits)
    if isinstance(error, HttpProcessingError) and error.message.startswith("Too many headers"):
        count = limits.max_header_count
        return HeadersTooLarge(f"there are over {count} headers (limits.max_header_count)")
    kind = type(error).__name__ if error is not None else "malformed"
    return BadRequest(f"this is not a valid HTTP/1.1 request ({kind})", code="malformed_request")
