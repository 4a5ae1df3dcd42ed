"""Cross-origin requests: which web pages may send requests (WHATWG Fetch, "CORS protocol").

Keys travel in a header that the page sets itself, never in a cookie, so credentials are not
allowed and a wildcard origin gives nobody more than they could do without a browser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from multidict import CIMultiDict

_EXPOSED = ", ".join(
    (
        "X-Request-Id",
        "X-Gateway-Model",
        "X-Stream-Id",
        "ETag",
        "Retry-After",
        "x-ratelimit-limit-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-requests",
        "x-ratelimit-reset-tokens",
    )
)
_MAX_AGE = "7200"  # seconds; Chromium's own cap


class Cors:
    """The rules of one configuration: ``origins`` like ``https://*.web.app``, or ``*``."""

    def __init__(self, origins: Iterable[str]) -> None:
        wanted = tuple(origins)
        self._any = "*" in wanted
        self._patterns = [_compile(origin) for origin in wanted if origin != "*"]

    def allowed(self, origin: str) -> str | None:
        """Return the value of Access-Control-Allow-Origin for ``origin``, or ``None``."""
        if self._any:
            return "*"
        return origin if self.lists(origin) else None

    def lists(self, origin: str) -> bool:
        """Return whether ``origin`` is named, and not only let in by ``*``."""
        return any(p.fullmatch(origin) for p in self._patterns)

    def decorate(self, request: Mapping[str, str], answer: CIMultiDict[str]) -> None:
        """Add what a browser needs to an answer, errors and streams alike."""
        answer.add("Vary", "Origin")  # also without one: a cache must not mix them up
        origin = request.get("Origin")
        if origin is None or (value := self.allowed(origin)) is None:
            return
        answer["Access-Control-Allow-Origin"] = value
        answer["Access-Control-Expose-Headers"] = _EXPOSED

    def preflight(self, request: Mapping[str, str]) -> CIMultiDict[str]:
        """Return the headers that answer an OPTIONS request with Access-Control-Request-Method."""
        answer: CIMultiDict[str] = CIMultiDict()
        answer["Vary"] = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
        origin = request.get("Origin")
        if origin is None or self.allowed(origin) is None:
            return answer
        answer["Access-Control-Allow-Methods"] = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
        answer["Access-Control-Allow-Headers"] = request.get(
            "Access-Control-Request-Headers", "Authorization, Content-Type, X-Api-Key"
        )
        answer["Access-Control-Max-Age"] = _MAX_AGE
        if request.get("Access-Control-Request-Private-Network") == "true":
            # A page on the internet that calls a box at home (WICG Private Network Access).
            answer["Access-Control-Allow-Private-Network"] = "true"
        return answer


def _compile(origin: str) -> re.Pattern[str]:
    """Return the pattern of one origin, as :mod:`gateway.config.schema` lets it through.

    ``*.`` at the beginning of a host stands for one label or more, a ``*`` elsewhere in it for a
    part of one label (``https://my-app--*.web.app``, Firebase's previews), and as a port for any.
    No star stands for a scheme, a dot too many, or what comes after the host.
    """
    scheme, _, authority = origin.partition("://")
    any_port = authority.endswith(":*")
    host = re.escape(authority.removesuffix(":*"))
    if host.startswith(r"\*\."):
        host = rf"(?:{_LABEL}\.)+{host.removeprefix(chr(92) + '*' + chr(92) + '.')}"
    host = host.replace(r"\*", _LABEL)
    port = r"(?::[0-9]{1,5})?" if any_port else ""
    return re.compile(f"{re.escape(scheme)}://{host}{port}", re.IGNORECASE | re.ASCII)


_LABEL = "[A-Za-z0-9-]+"
