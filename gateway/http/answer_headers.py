"""The header fields that every answer carries, whoever made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from multidict import CIMultiDict

from gateway.http.cors import Cors
from gateway.http.hosts import Proxies
from gateway.http.request import RequestHead
from gateway.http.response import Context
from gateway.http.tls_state import TlsState

#: The headers of every answer: what a browser must not do with it. None names a version.
EVERY_ANSWER: Final = {
    "Server": "llm-gateway",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


class AnswerHeaders:
    """The common headers: CORS as ``cors`` allows, HSTS as ``tls`` and the proxies in front ask
    for.
    """

    __slots__ = ("_cors", "_proxies", "_tls")

    def __init__(self, cors: Cors, tls: TlsState, proxies: Proxies) -> None:
        self._cors = cors
        self._tls = tls
        self._proxies = proxies

    def decorate(
        self, request: RequestHead, context: Context | None, headers: CIMultiDict[str]
    ) -> None:
        """Add all of them to the ``headers`` of an answer to ``request``."""
        self.add_common(headers, request.headers, self.hsts(request))
        if context is not None:
            headers.update(context.answer_headers())

    def add_common(
        self, headers: CIMultiDict[str], asked: Mapping[str, str], hsts: str | None
    ) -> None:
        """Add those that are the same in every answer to a request with the headers ``asked``."""
        self._cors.decorate(asked, headers)
        headers.update(EVERY_ANSWER)
        if "Cache-Control" not in headers:  # streams have their own
            headers["Cache-Control"] = "no-store"  # it may hold a key, or somebody's chat
        if hsts is not None:
            headers["Strict-Transport-Security"] = hsts

    def hsts(self, request: RequestHead) -> str | None:
        """Return the Strict-Transport-Security of its answer (RFC 6797, 6.1)."""
        if request.secure:
            return self._tls.hsts
        return self._proxies.hsts(request) if self._proxies.any else None
