"""The key that a request presents.

It comes as ``Authorization: Bearer K`` (RFC 6750), ``X-Api-Key: K``, or, on GET and where the
configuration allows it, ``?authKey=K``, because a browser's EventSource cannot send headers. The
first of these that holds a key counts. Nothing, a scheme alone, and the words that clients send
for want of a key (:data:`gateway.access.key_format.PLACEHOLDERS`) are none: they are refused as a
request without a key is, and don't count as guesses.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from gateway.access.key_format import is_placeholder


def presented_key(request: web.Request, *, allow_query: bool) -> str | None:
    """Return the key that came with the request, unchecked."""
    if (key := key_in(request.headers)) is not None:
        return key
    if allow_query and request.method == "GET" and "authKey" in request.rel_url.raw_query_string:
        return _a_key(request.rel_url.query.get("authKey", ""))
    return None


def key_in(headers: Mapping[str, str]) -> str | None:
    """Return the key in a request's headers, unchecked."""
    authorization = headers.get("Authorization")
    if (
        authorization is not None
        and authorization[:7].lower() == "bearer "
        and (key := _a_key(authorization[7:].strip())) is not None
    ):
        return key
    return _a_key(headers.get("X-Api-Key", "").strip())


def _a_key(text: str) -> str | None:
    return text if text and not is_placeholder(text) else None
